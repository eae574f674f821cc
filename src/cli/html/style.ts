/** Colours hold a contrast of 4.5 on both grounds; on paper, sections stay together and nothing is cut off. */
import { html } from './html.ts';

export const STYLE = html`<style>
:root {
  --ground: #fff; --text: #1b1f24; --faint: #57606a; --line: #d0d7de; --head: #f6f8fa;
  --good: #116329; --lossy: #7d4e00; --crashed: #a40e26; --bad: #a40e26;
  --patched: #d1242f; --kernel: #0969da; --tables: #8250df; --data: #8c959f; --zero: #e6eaef; --left: #fff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0d1117; --text: #e6edf3; --faint: #9da7b1; --line: #30363d; --head: #161b22;
    --good: #56d364; --lossy: #e3b341; --crashed: #ff7b72; --bad: #ff7b72;
    --patched: #ff7b72; --kernel: #58a6ff; --tables: #bc8cff; --data: #6e7681; --zero: #21262d; --left: #0d1117;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
header, main, footer { max-width: 80rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 1.5rem; border-left: 0.4rem solid; }
header.good { border-color: var(--good); } header.good h1 { color: var(--good); }
header.lossy { border-color: var(--lossy); } header.lossy h1 { color: var(--lossy); }
header.crashed, header.bad { border-color: var(--crashed); } header.crashed h1, header.bad h1 { color: var(--crashed); }
a { color: inherit; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.25; overflow-wrap: anywhere; }
.file { margin: 0; color: var(--faint); overflow-wrap: anywhere; }
h2 { margin: 2rem 0 0.5rem; padding-bottom: 0.2rem; border-bottom: 1px solid var(--line); font-size: 1.2rem; }
h3 { margin: 1.2rem 0 0; font-size: 1rem; }
p { margin: 0.3rem 0; }
.losses h2 { color: var(--crashed); } .warnings h2 { color: var(--lossy); }
.note, footer, figcaption { color: var(--faint); font-size: 0.875rem; }
footer { padding-top: 2rem; padding-bottom: 2rem; overflow-wrap: anywhere; }
code { font: 0.85rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1.5rem; margin: 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
ul { margin: 0.3rem 0; padding-left: 1.2rem; } li { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.5rem 0; font-size: 0.9rem; }
th, td { padding: 0.15rem 1rem 0.15rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { background: var(--head); font-weight: 600; white-space: nowrap; }
td code { white-space: nowrap; overflow-wrap: normal; }
summary { cursor: pointer; }
figure { margin: 0.6rem 0; } svg { display: block; max-width: 100%; }
.legend span { display: inline-block; margin-right: 1.2rem; }
.legend i { display: inline-block; width: 0.8rem; height: 0.8rem; vertical-align: -0.1rem; }
.patched { fill: var(--patched); background: var(--patched); } .kernel { fill: var(--kernel); background: var(--kernel); }
.tables { fill: var(--tables); background: var(--tables); } .data { fill: var(--data); background: var(--data); }
.zero { fill: var(--zero); background: var(--zero); }
.left { fill: var(--left); stroke: var(--line); background: var(--left); border: 1px solid var(--line); }
@media print {
  :root { color-scheme: light; }
  body { font-size: 10pt; }
  section, article, figure { break-inside: avoid-page; } h2, h3 { break-after: avoid-page; }
  .scroll { overflow: visible; } td code { white-space: normal; overflow-wrap: anywhere; }
  i, rect, header { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
</style>`;
