/**
 * docs/api.md: the library's reference, made from the doc comments in the types that the package ships (dist/).
 * `npm run docs` builds them first. The compiler is the oldest that can read the types, so that this page shows them
 * as every compiler reads them.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import ts from 'typescript-5.0';
import { ROWS } from '../src/options/table.ts';
import { libraryName } from '../src/options/values.ts';

const ENTRY = fileURLToPath(new URL('../dist/index.d.ts', import.meta.url));
const TABLE = fileURLToPath(new URL('../dist/options/table.d.ts', import.meta.url));

/** docs/api.md */
export function apiDocument(): string {
  const program = ts.createProgram([ENTRY], {
    strict: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    types: ['node'],
  });
  const checker = program.getTypeChecker();
  const file = program.getSourceFile(ENTRY);
  const module = file && checker.getSymbolAtLocation(file);
  if (!module) throw new Error(`${ENTRY} is no module: build first`);
  const exported = checker.getExportsOfModule(module).map((symbol) => resolved(checker, symbol));
  const isValue = ({ symbol }: Exported) => (symbol.flags & ts.SymbolFlags.Value) !== 0;
  const names = new Set(exported.map(({ name }) => name));
  const page = { checker, names, options: optionDocs(program) };
  const write = (one: Exported) => sectionOf(page, one);
  return [
    '# API',
    '',
    '<!-- Made from the doc comments by `npm run docs`: edit those. -->',
    '',
    'What `import … from "elf2dmp"` has. How to use it: [library.md](library.md); what the options do: [options.md](options.md).',
    'The types need TypeScript 5.0 or later and `@types/node`.',
    '',
    '## Functions and classes',
    '',
    ...exported.filter(isValue).flatMap(write),
    '## Types',
    '',
    ...exported.filter((one) => !isValue(one)).flatMap(write),
  ].join('\n');
}

interface Page {
  checker: ts.TypeChecker;
  /** Of all sections. */
  names: ReadonlySet<string>;
  /** Doc comments of the table of options, by the names that they have in the library. */
  options: ReadonlyMap<string, string>;
}

/** Options get their types from the table, whose rows carry their comments. */
function optionDocs(program: ts.Program): Map<string, string> {
  const checker = program.getTypeChecker();
  const file = program.getSourceFile(TABLE);
  const module = file && checker.getSymbolAtLocation(file);
  const table = module && checker.getExportsOfModule(module).find(({ name }) => name === 'OPTIONS');
  if (!table?.valueDeclaration) throw new Error(`${TABLE} has no table of options`);
  const type = checker.getTypeOfSymbolAtLocation(table, table.valueDeclaration);
  return new Map(
    ROWS.map(([name, row]) => {
      const property = checker.getPropertyOfType(type, name);
      const text = property ? ts.displayPartsToString(property.getDocumentationComment(checker)) : '';
      // A row without a comment means the same in the library as on the command line.
      return [libraryName(name, row), text === '' ? row.help : text];
    }),
  );
}

interface Exported {
  name: string;
  symbol: ts.Symbol;
}

function resolved(checker: ts.TypeChecker, symbol: ts.Symbol): Exported {
  const isAlias = (symbol.flags & ts.SymbolFlags.Alias) !== 0;
  return { name: symbol.name, symbol: isAlias ? checker.getAliasedSymbol(symbol) : symbol };
}

const FORMAT = ts.TypeFormatFlags.NoTruncation | ts.TypeFormatFlags.UseAliasDefinedOutsideCurrentScope;

function sectionOf(page: Page, { name, symbol }: Exported): string[] {
  const { checker } = page;
  const declaration = symbol.declarations?.[0];
  if (!declaration) throw new Error(`${name} is declared nowhere`);
  const lines = [`### ${name}`, '', ...docOf(page, symbol)];
  if (symbol.flags & ts.SymbolFlags.Variable) {
    const type = checker.getTypeOfSymbolAtLocation(symbol, declaration);
    return [...lines, '```ts', `${name}: ${typeText(page, type, declaration)}`, '```', ''];
  }
  const type = checker.getDeclaredTypeOfSymbol(symbol);
  if (type.isUnion() || !(type.flags & ts.TypeFlags.Object)) {
    const text = declaration.getText().replace(/^export (declare )?/, '');
    return [...lines, '```ts', text, '```', ''];
  }
  const rows = checker
    .getPropertiesOfType(type)
    .filter((property) => isPublic(property))
    .map((property) => rowOf(page, property, declaration));
  return [...lines, '| member | type | |', '| --- | --- | --- |', ...rows, ''];
}

const isPublic = (property: ts.Symbol): boolean =>
  !property.name.startsWith('__') &&
  !(property.declarations ?? []).some(
    (d) =>
      (d as ts.NamedDeclaration).name?.kind === ts.SyntaxKind.PrivateIdentifier ||
      ts.getCombinedModifierFlags(d) & ts.ModifierFlags.Private,
  );

function rowOf(page: Page, property: ts.Symbol, declaration: ts.Declaration): string {
  const optional = property.flags & ts.SymbolFlags.Optional ? '?' : '';
  const type = typeText(page, page.checker.getTypeOfSymbolAtLocation(property, declaration), declaration);
  const shown = optional ? type.replace(/ \| undefined$/, '') : type;
  const own = docOf(page, property).join(' ').trim();
  const text = own === '' ? (page.options.get(property.name) ?? '') : own;
  return `| \`${property.name}${optional}\` | ${cell(`\`${shown}\``)} | ${cell(text)} |`;
}

/** Without the files that types are declared in, and on one line. */
const typeText = ({ checker }: Page, type: ts.Type, declaration: ts.Declaration): string =>
  checker
    .typeToString(type, declaration, FORMAT)
    .replace(/import\("[^"]*"\)\./g, '')
    .replace(/\s+/g, ' ');

/** A doc comment's text, with its parameters. */
function docOf({ checker, names }: Page, symbol: ts.Symbol): string[] {
  const text = ts.displayPartsToString(symbol.getDocumentationComment(checker));
  const tags = symbol.getJsDocTags(checker).map(({ name, text: parts }) => {
    const words = ts.displayPartsToString(parts);
    const [parameter = '', ...rest] = words.split(' ');
    return name === 'param' ? `- \`${parameter}\`: ${rest.join(' ')}` : `- ${name}: ${words}`;
  });
  // Names of other sections become links, but not in code.
  const linked = text.replace(/`(\w+)`(?!\()/g, (all, name: string) =>
    names.has(name) && name !== symbol.name ? `[${all}](#${name.toLowerCase()})` : all,
  );
  return [linked, ...(tags.length > 0 ? ['', ...tags] : []), ''].filter((line, i) => i > 0 || line !== '');
}

const cell = (text: string): string => text.replace(/\s*\n\s*/g, ' ').replace(/\|/g, '\\|');

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(new URL('../docs/api.md', import.meta.url), apiDocument());
}
