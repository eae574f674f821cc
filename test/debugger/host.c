// Opens a dump in the engine of WinDbg (dbgeng.dll) and runs the commands that come on standard input, one a line.
// Built with mingw-w64 and run under Wine (or on Windows), beside the engine's DLLs; see docs/debugger.md.
//
//   host.exe MARK SECONDS DUMP < commands
//
// MARK is any word without spaces: each command's output stands between the lines "MARK begin N" and
// "MARK end N HRESULT", N counting from 0; what the engine says while opening is command "open".
// SECONDS is how long the whole session may take. Lines that start with "!" are commands of this host where it
// knows them (see `own` below), everything else goes to the engine as typed.
//
// Exit code: 0 all commands ran (each has its own HRESULT), 2 usage, 3 no engine, 4 the dump does not open,
// 5 the engine crashed, 6 out of time.
#define INITGUID
#include <windows.h>
#include <dbgeng.h>
#include <fcntl.h>
#include <io.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum { EXIT_USAGE = 2, EXIT_NO_ENGINE = 3, EXIT_NO_DUMP = 4, EXIT_CRASH = 5, EXIT_TIMEOUT = 6 };

static IDebugClient4 *client;
static IDebugControl3 *control;
static IDebugDataSpaces3 *spaces;
static IDebugRegisters *registers;
static IDebugSymbols2 *symbols;
static IDebugSystemObjects *objects;
static const char *mark;

static void finish(const char *name, HRESULT hr) {
  printf("\n%s end %s 0x%08lx\n", mark, name, (unsigned long)hr);
  fflush(stdout);
}

// ---- output callbacks --------------------------------------------------------------------------------------

// Saying yes to more interfaces than these makes the engine call methods that are not there.
static HRESULT STDMETHODCALLTYPE outQuery(IDebugOutputCallbacks *self, REFIID id, void **out) {
  if (IsEqualGUID(id, &IID_IUnknown) || IsEqualGUID(id, &IID_IDebugOutputCallbacks)) {
    *out = self;
    return S_OK;
  }
  *out = NULL;
  return E_NOINTERFACE;
}
static ULONG STDMETHODCALLTYPE outRef(IDebugOutputCallbacks *self) {
  (void)self;
  return 1;
}
static HRESULT STDMETHODCALLTYPE outText(IDebugOutputCallbacks *self, ULONG mask, PCSTR text) {
  (void)self, (void)mask;
  fputs(text, stdout);
  return S_OK;
}
static IDebugOutputCallbacksVtbl outTable = {outQuery, outRef, outRef, outText};
static IDebugOutputCallbacks out = {&outTable};

// ---- the host's own commands -------------------------------------------------------------------------------

static void hex(const unsigned char *bytes, size_t length) {
  for (size_t i = 0; i < length; i++) printf("%02x%s", bytes[i], i % 32 == 31 || i + 1 == length ? "\n" : "");
}

typedef struct {
  uint64_t at[4];
  int count;
} Args;

static HRESULT readBytes(const Args *args, int physical) {
  if (args->count < 2 || args->at[1] > 64u << 20) return E_INVALIDARG;
  ULONG length = (ULONG)args->at[1], got = 0;
  unsigned char *buffer = calloc(1, length + 1);
  HRESULT hr = physical ? spaces->lpVtbl->ReadPhysical(spaces, args->at[0], buffer, length, &got)
                        : spaces->lpVtbl->ReadVirtual(spaces, args->at[0], buffer, length, &got);
  if (SUCCEEDED(hr)) {
    printf("length %lu\n", (unsigned long)got);
    hex(buffer, got);
  }
  free(buffer);
  return hr;
}
static HRESULT ownPhys(const Args *args) { return readBytes(args, 1); }
static HRESULT ownVirt(const Args *args) { return readBytes(args, 0); }

static HRESULT ownTranslate(const Args *args) {
  ULONG64 physical = 0;
  if (args->count < 1) return E_INVALIDARG;
  HRESULT hr = spaces->lpVtbl->VirtualToPhysical(spaces, args->at[0], &physical);
  if (SUCCEEDED(hr)) printf("physical 0x%llx\n", (unsigned long long)physical);
  return hr;
}

static HRESULT ownCpu(const Args *args) {
  if (args->count < 1) return E_INVALIDARG;
  return objects->lpVtbl->SetCurrentThreadId(objects, (ULONG)args->at[0]);
}

static HRESULT ownRegs(const Args *args) {
  (void)args;
  ULONG count = 0;
  HRESULT hr = registers->lpVtbl->GetNumberRegisters(registers, &count);
  for (ULONG i = 0; SUCCEEDED(hr) && i < count; i++) {
    char name[64] = "";
    DEBUG_REGISTER_DESCRIPTION description;
    DEBUG_VALUE value;
    memset(&value, 0, sizeof value);
    hr = registers->lpVtbl->GetDescription(registers, i, name, sizeof name, NULL, &description);
    if (FAILED(hr)) break;
    if ((description.Flags & DEBUG_REGISTER_SUB_REGISTER) || strchr(name, '/')) continue;
    HRESULT one = registers->lpVtbl->GetValue(registers, i, &value);
    size_t size;
    switch (value.Type) {
      case DEBUG_VALUE_INT8: size = 1; break;
      case DEBUG_VALUE_INT16: size = 2; break;
      case DEBUG_VALUE_INT32: case DEBUG_VALUE_FLOAT32: size = 4; break;
      case DEBUG_VALUE_INT64: case DEBUG_VALUE_FLOAT64: case DEBUG_VALUE_VECTOR64: size = 8; break;
      case DEBUG_VALUE_FLOAT80: size = 10; break;
      case DEBUG_VALUE_FLOAT82: size = 11; break;
      default: size = 16;
    }
    if (FAILED(one)) {
      printf("%s=?0x%08lx\n", name, (unsigned long)one);
      continue;
    }
    printf("%s=0x", name);
    while (size--) printf("%02x", value.RawBytes[size]);
    printf("\n");
  }
  return hr;
}

static HRESULT ownBugcheck(const Args *args) {
  (void)args;
  ULONG code = 0;
  ULONG64 at[4] = {0};
  HRESULT hr = control->lpVtbl->ReadBugCheckData(control, &code, &at[0], &at[1], &at[2], &at[3]);
  if (SUCCEEDED(hr)) {
    printf("code=0x%lx\n", (unsigned long)code);
    for (int i = 0; i < 4; i++) printf("parameter%d=0x%llx\n", i + 1, (unsigned long long)at[i]);
  }
  return hr;
}

static HRESULT ownSystem(const Args *args) {
  (void)args;
  ULONG platform = 0, major = 0, minor = 0, pack = 0, used, type = 0, class = 0, qualifier = 0, n = 0;
  char packText[256] = "", build[256] = "";
  HRESULT hr = control->lpVtbl->GetSystemVersion(control, &platform, &major, &minor, packText, sizeof packText, &used,
                                                 &pack, build, sizeof build, &used);
  printf("version.hresult=0x%08lx\nplatform=%lu\nmajor=0x%lx\nminor=%lu\nservicePack=%lu\nservicePackText=%s\nbuildText=%s\n",
         (unsigned long)hr, platform, major, minor, pack, packText, build);
  if (SUCCEEDED(control->lpVtbl->GetNumberProcessors(control, &n))) printf("processors=%lu\n", n);
  if (SUCCEEDED(control->lpVtbl->GetPageSize(control, &n))) printf("pageSize=%lu\n", n);
  if (SUCCEEDED(control->lpVtbl->GetActualProcessorType(control, &type))) printf("processorType=0x%lx\n", type);
  if (SUCCEEDED(control->lpVtbl->GetEffectiveProcessorType(control, &type))) printf("effectiveProcessorType=0x%lx\n", type);
  if (SUCCEEDED(control->lpVtbl->GetDebuggeeType(control, &class, &qualifier))) printf("class=%lu\nqualifier=%lu\n", class, qualifier);
  if (SUCCEEDED(control->lpVtbl->GetCurrentTimeDate(control, &n))) printf("time=%lu\n", n);
  if (SUCCEEDED(control->lpVtbl->GetCurrentSystemUpTime(control, &n))) printf("uptime=%lu\n", n);
  printf("pointer64=%d\n", control->lpVtbl->IsPointer64Bit(control) == S_OK);
  if (SUCCEEDED(objects->lpVtbl->GetNumberThreads(objects, &n))) printf("threads=%lu\n", n);
  if (SUCCEEDED(objects->lpVtbl->GetCurrentThreadId(objects, &n))) printf("thread=%lu\n", n);
  return S_OK;
}

static HRESULT ownEvent(const Args *args) {
  (void)args;
  ULONG type = 0, process = 0, thread = 0, used = 0, textUsed = 0;
  unsigned char extra[512];
  char text[512] = "";
  HRESULT hr = control->lpVtbl->GetLastEventInformation(control, &type, &process, &thread, extra, sizeof extra, &used, text,
                                                        sizeof text, &textUsed);
  if (SUCCEEDED(hr)) {
    printf("type=0x%lx\nprocess=%lu\nthread=%lu\ntext=%s\nextra=", type, process, thread, text);
    hex(extra, used);
    printf("\n");
  }
  return hr;
}

// One module: lines name=value, then an empty line.
static HRESULT ownModules(const Args *args) {
  (void)args;
  ULONG loaded = 0, unloaded = 0;
  HRESULT hr = symbols->lpVtbl->GetNumberModules(symbols, &loaded, &unloaded);
  for (ULONG i = 0; SUCCEEDED(hr) && i < loaded; i++) {
    ULONG64 base = 0;
    DEBUG_MODULE_PARAMETERS p;
    char image[1024] = "", name[1024] = "", loadedImage[1024] = "";
    hr = symbols->lpVtbl->GetModuleByIndex(symbols, i, &base);
    if (SUCCEEDED(hr)) hr = symbols->lpVtbl->GetModuleParameters(symbols, 1, &base, 0, &p);
    if (FAILED(hr)) break;
    symbols->lpVtbl->GetModuleNames(symbols, DEBUG_ANY_ID, base, image, sizeof image, NULL, name, sizeof name, NULL, loadedImage,
                                    sizeof loadedImage, NULL);
    printf("base=0x%llx\nsize=0x%lx\ntimestamp=0x%lx\nchecksum=0x%lx\nname=%s\nimage=%s\nloadedImage=%s\n\n",
           (unsigned long long)base, p.Size, p.TimeDateStamp, p.Checksum, name, image, loadedImage);
  }
  return hr;
}

static HRESULT ownStack(const Args *args) {
  ULONG limit = args->count ? (ULONG)args->at[0] : 64, filled = 0;
  if (limit == 0 || limit > 10000) return E_INVALIDARG;
  DEBUG_STACK_FRAME *frames = calloc(limit, sizeof *frames);
  HRESULT hr = control->lpVtbl->GetStackTrace(control, 0, 0, 0, frames, limit, &filled);
  for (ULONG i = 0; SUCCEEDED(hr) && i < filled; i++) {
    char name[1024] = "";
    ULONG64 offset = 0;
    symbols->lpVtbl->GetNameByOffset(symbols, frames[i].InstructionOffset, name, sizeof name, NULL, &offset);
    printf("instruction=0x%llx\nreturn=0x%llx\nframe=0x%llx\nstack=0x%llx\nsymbol=%s\noffset=0x%llx\n\n",
           (unsigned long long)frames[i].InstructionOffset, (unsigned long long)frames[i].ReturnOffset,
           (unsigned long long)frames[i].FrameOffset, (unsigned long long)frames[i].StackOffset, name,
           (unsigned long long)offset);
  }
  free(frames);
  return hr;
}

// The engine's notion of a value of the kernel debugger's data block: DEBUG_DATA_* index, size.
static HRESULT ownData(const Args *args) {
  unsigned char buffer[4096];
  ULONG used = 0;
  if (args->count < 1) return E_INVALIDARG;
  ULONG size = args->count > 1 ? (ULONG)args->at[1] : 8;
  if (size > sizeof buffer) return E_INVALIDARG;
  HRESULT hr = spaces->lpVtbl->ReadDebuggerData(spaces, (ULONG)args->at[0], buffer, size, &used);
  if (SUCCEEDED(hr)) {
    printf("length %lu\n", used < size ? used : size);
    hex(buffer, used < size ? used : size);
  }
  return hr;
}

// KPCR (0), KPRCB (1) and KTHREAD (2) of a processor: processor, index.
static HRESULT ownProcessor(const Args *args) {
  ULONG64 value = 0;
  ULONG used = 0;
  if (args->count < 2) return E_INVALIDARG;
  HRESULT hr = spaces->lpVtbl->ReadProcessorSystemData(spaces, (ULONG)args->at[0], (ULONG)args->at[1], &value, sizeof value, &used);
  if (SUCCEEDED(hr)) printf("value 0x%llx\n", (unsigned long long)value);
  return hr;
}

static const struct {
  const char *name;
  HRESULT (*run)(const Args *);
} own[] = {
    {"!phys", ownPhys},           // ADDRESS LENGTH: physical memory
    {"!virt", ownVirt},           // ADDRESS LENGTH: virtual memory of the current processor
    {"!translate", ownTranslate}, // ADDRESS: its physical address
    {"!cpu", ownCpu},             // N: makes processor N the current one
    {"!regs", ownRegs},           // all registers that are not parts of others
    {"!bugcheckdata", ownBugcheck},
    {"!system", ownSystem}, // what the engine answers about the whole system
    {"!event", ownEvent},   // the last event
    {"!modules", ownModules},
    {"!stack", ownStack},         // [N]: at most N frames of the current processor
    {"!data", ownData},           // INDEX [SIZE]
    {"!processor", ownProcessor}, // N INDEX
};

static HRESULT execute(const char *line) {
  if (line[0] == '!') {
    size_t length = strcspn(line, " ");
    for (size_t i = 0; i < COUNT(own); i++) {
      if (strlen(own[i].name) != length || strncmp(own[i].name, line, length) != 0) continue;
      Args args = {{0}, 0};
      const char *at = line + length;
      while (args.count < (int)COUNT(args.at)) {
        char *end;
        args.at[args.count] = strtoull(at, &end, 0);
        if (end == at) break;
        args.count++;
        at = end;
      }
      return own[i].run(&args);
    }
  }
  return control->lpVtbl->Execute(control, DEBUG_OUTCTL_THIS_CLIENT, line, DEBUG_EXECUTE_NOT_LOGGED | DEBUG_EXECUTE_NO_REPEAT);
}

// ---- the session -------------------------------------------------------------------------------------------

static LONG WINAPI crashed(EXCEPTION_POINTERS *info) {
  fflush(stdout);
  printf("\n%s crash 0x%08lx at %p\n", mark, (unsigned long)info->ExceptionRecord->ExceptionCode,
         info->ExceptionRecord->ExceptionAddress);
  fflush(stdout);
  TerminateProcess(GetCurrentProcess(), EXIT_CRASH);
  return EXCEPTION_EXECUTE_HANDLER;
}

// The engine may hold stdout's lock, so this says nothing: the exit code does.
static DWORD WINAPI watchdog(void *seconds) {
  Sleep((DWORD)(uintptr_t)seconds * 1000);
  TerminateProcess(GetCurrentProcess(), EXIT_TIMEOUT);
  return 0;
}

static HRESULT query(const IID *id, void *out) { return client->lpVtbl->QueryInterface(client, id, out); }

int wmain(int argc, wchar_t **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: host.exe MARK SECONDS DUMP < commands\n");
    return EXIT_USAGE;
  }
  static char markText[128], buffer[1 << 16];
  wcstombs(markText, argv[1], sizeof markText - 1);
  mark = markText;
  _setmode(_fileno(stdout), _O_BINARY);
  setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
  SetUnhandledExceptionFilter(crashed);
  CreateThread(NULL, 0, watchdog, (void *)(uintptr_t)wcstoul(argv[2], NULL, 10), 0, NULL);

  HMODULE engine = LoadLibraryA("dbgeng.dll");
  HRESULT(STDAPICALLTYPE * create)(REFIID, void **) = engine ? (void *)GetProcAddress(engine, "DebugCreate") : NULL;
  HRESULT hr = create ? create(&IID_IDebugClient4, (void **)&client) : HRESULT_FROM_WIN32(GetLastError());
  if (SUCCEEDED(hr)) hr = query(&IID_IDebugControl3, &control);
  if (SUCCEEDED(hr)) hr = query(&IID_IDebugDataSpaces3, &spaces);
  if (SUCCEEDED(hr)) hr = query(&IID_IDebugRegisters, &registers);
  if (SUCCEEDED(hr)) hr = query(&IID_IDebugSymbols2, &symbols);
  if (SUCCEEDED(hr)) hr = query(&IID_IDebugSystemObjects, &objects);
  if (FAILED(hr)) {
    printf("\n%s engine 0x%08lx\n", mark, (unsigned long)hr);
    fflush(stdout);
    TerminateProcess(GetCurrentProcess(), EXIT_NO_ENGINE);
  }
  client->lpVtbl->SetOutputCallbacks(client, &out);

  printf("%s begin open\n", mark);
  hr = client->lpVtbl->OpenDumpFileWide(client, argv[3], 0);
  if (SUCCEEDED(hr)) hr = control->lpVtbl->WaitForEvent(control, 0, INFINITE);
  finish("open", hr);
  if (FAILED(hr)) TerminateProcess(GetCurrentProcess(), EXIT_NO_DUMP);

  static char line[1 << 16];
  for (int n = 0; fgets(line, sizeof line, stdin); n++) {
    char name[16];
    line[strcspn(line, "\r\n")] = 0;
    sprintf(name, "%d", n);
    printf("%s begin %s\n", mark, name);
    finish(name, execute(line));
  }
  fflush(stdout);
  // The engine's own shutdown has nothing to tell us and takes time.
  TerminateProcess(GetCurrentProcess(), 0);
  return 0;
}
