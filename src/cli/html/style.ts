/** Colours have a contrast of at least 4.5 on both grounds; on paper all is unfolded and nothing is cut off. */
export const STYLE = `
:root {
  --ground: #fff; --panel: #f6f8fa; --text: #1b1f24; --faint: #57606a; --line: #d0d7de; --link: #0550ae;
  --good: #116329; --lossy: #7d4e00; --bad: #a40e26; --tint: #fff1f0;
  --patched: #d1242f; --kernel: #0969da; --tables: #8250df; --data: #8c959f; --zero: #e0e5ea; --left: #fff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0d1117; --panel: #161b22; --text: #e6edf3; --faint: #9da7b1; --line: #30363d; --link: #79c0ff;
    --good: #56d364; --lossy: #e3b341; --bad: #ff7b72; --tint: #2a1416;
    --patched: #ff7b72; --kernel: #58a6ff; --tables: #bc8cff; --data: #6e7681; --zero: #252b33; --left: #0d1117;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--text); font: 0.9375rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
header, nav, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 1rem; padding-bottom: 0.75rem; border-left: 0.375rem solid var(--bad); }
header h1 { color: var(--bad); }
header.good { border-color: var(--good); } header.good h1 { color: var(--good); }
header.lossy { border-color: var(--lossy); } header.lossy h1 { color: var(--lossy); }
a { color: var(--link); }
h1 { margin: 0 0 0.25rem; font-size: 1.5rem; line-height: 1.25; }
.file { margin: 0; color: var(--faint); }
.culprit { font-size: 1.05rem; }
.unbroken { white-space: nowrap; }
nav { padding-top: 0.5rem; padding-bottom: 0.5rem; border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); background: var(--panel); font-size: 0.875rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin: 0; padding: 0; list-style: none; }
nav a { text-decoration: none; } nav a:hover, nav a:focus { text-decoration: underline; }
h2 { margin: 1.5rem 0 0.5rem; padding-bottom: 0.2rem; border-bottom: 1px solid var(--line); font-size: 1.125rem; }
h3 { margin: 0 0 0.25rem; font-size: 1rem; }
p { margin: 0.25rem 0; }
section.bad h2 { color: var(--bad); } section.lossy h2 { color: var(--lossy); }
.count { color: var(--faint); font-weight: 400; font-variant-numeric: tabular-nums; }
.note, .faint, footer { color: var(--faint); } .note, footer { font-size: 0.8125rem; }
footer { padding-top: 1.5rem; padding-bottom: 1.5rem; }
code { font: 0.8125rem/1.4 ui-monospace, Consolas, "DejaVu Sans Mono", monospace; }
.badge { display: inline-block; padding: 0 0.5em; border-radius: 0.75em; background: var(--bad); color: var(--ground); font-size: 0.75rem; font-weight: 600; line-height: 1.5; }
.badge.plain { background: var(--panel); color: var(--faint); border: 1px solid var(--line); font-weight: 400; }
dl { margin: 0; }
dl > div { display: grid; grid-template-columns: 8rem 1fr; gap: 0 1rem; padding: 0.1rem 0; }
dt { color: var(--faint); } dd { margin: 0; }
dl.steps { padding: 0.5rem 0.75rem; border: 1px solid var(--line); border-radius: 0.375rem; background: var(--panel); }
dl.steps { display: grid; grid-template-columns: fit-content(60%) 1fr; gap: 0.125rem 1.5rem; }
dl.steps > div { grid-column: 1 / -1; grid-template-columns: subgrid; }
dl.steps dt { color: var(--text); } dl.steps dd { color: var(--faint); font-size: 0.875rem; }
ul { margin: 0.25rem 0; padding-left: 1.25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.25rem 0; font-size: 0.875rem; }
th, td { padding: 0.125rem 1rem 0.125rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 400; white-space: nowrap; }
td { overflow-wrap: normal; white-space: nowrap; } td.text { min-width: 12rem; white-space: normal; }
summary { cursor: pointer; } summary h2 { display: inline-block; margin: 0.25rem 0; border: 0; padding: 0; }
section:has(> details > summary > h2) { margin-top: 0.75rem; border-bottom: 1px solid var(--line); }
article.crash { margin: 0 0 1.25rem; } article.crash:target h3 { color: var(--bad); }
summary:focus-visible, .scroll:focus-visible, a:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.crashing { margin: 0 0 0.5rem; padding: 0.5rem 0.75rem; border: 1px solid var(--bad); border-left-width: 0.25rem; border-radius: 0.25rem; background: var(--tint); }
details.cpu { line-height: 1.4; padding: 0.0625rem 0; border-bottom: 1px solid var(--line); }
details.cpu[open] { padding-bottom: 0.75rem; } details.cpu > :not(summary) { margin-left: 1rem; }
ol.frames { margin: 0.25rem 0; padding: 0; list-style: none; counter-reset: frame -1; }
ol.frames li { display: grid; grid-template-columns: 2rem minmax(0, 44rem) max-content; align-items: baseline; counter-increment: frame; padding: 0.0625rem 0; }
ol.frames li::before { content: counter(frame); color: var(--faint); font-size: 0.8125rem; font-variant-numeric: tabular-nums; }
.addresses { color: var(--faint); } .addresses code { margin-left: 1rem; }
details.registers code { display: inline-block; min-width: 11.5rem; }
ul.legend { display: flex; flex-wrap: wrap; gap: 0 1.25rem; padding: 0; list-style: none; font-size: 0.875rem; }
.map { margin: 0.5rem 0; line-height: 0; font-size: 0; }
.map i, .legend i { display: inline-block; width: 9px; height: 9px; margin: 0 1px 1px 0; vertical-align: middle; }
.map span { display: inline-block; padding: 0 0.25rem; vertical-align: middle; font: 0.6875rem/1 ui-monospace, Consolas, monospace; color: var(--faint); }
.map .hole { margin: 0.125rem 0.25rem; padding: 0.125rem 0.375rem; border: 1px dashed var(--faint); border-width: 0 1px; }
.map .patched, .legend .patched { background: var(--patched); } .map .kernel, .legend .kernel { background: var(--kernel); }
.map .tables, .legend .tables { background: var(--tables); } .map .data, .legend .data { background: var(--data); }
.map .zero, .legend .zero { background: var(--zero); }
.map .left, .legend .left { background: var(--left); border: 1px solid var(--line); }
@media (max-width: 40rem) {
  header, nav, main, footer { padding-left: 0.75rem; padding-right: 0.75rem; }
  h1 { font-size: 1.25rem; }
  dl > div, dl.steps, dl.steps > div { grid-template-columns: 1fr; padding: 0.2rem 0; }
  dl.steps { padding: 0.5rem 0.75rem; } dl.steps > div { gap: 0; } dl.steps code { font-size: 0.75rem; }
  ol.frames li { grid-template-columns: 1.75rem 1fr; padding: 0.2rem 0; }
  .addresses { grid-column: 2; } .addresses code { margin: 0 0.75rem 0 0; font-size: 0.6875rem; }
  th, td { padding-right: 0.625rem; }
}
@media print {
  :root { color-scheme: light; }
  body { font-size: 9.5pt; }
  nav { display: none; } summary { list-style: none; }
  details::details-content { content-visibility: visible; display: block; }
  article, li, tr { break-inside: avoid-page; } h2, h3 { break-after: avoid-page; }
  .scroll { overflow: visible; } td { white-space: normal; overflow-wrap: anywhere; }
  i, header, .badge, .crashing { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`;
