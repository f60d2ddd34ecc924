"""The page's style sheet: one column, light or dark, readable on a phone and on paper."""

CSS = """
:root{--ink:#111827;--soft:#4b5563;--line:#e5e7eb;--paper:#fff;--good:#047857;--warn:#a16207;
--bad:#b91c1c}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:62rem;margin:0 auto;padding:2rem 1rem 4rem}
.kicker{color:var(--soft);margin:0}
h1{font-size:2.2rem;line-height:1.15;margin:.1rem 0 .3rem}
h2{font-size:1.25rem;margin:2.6rem 0 .4rem;padding-top:.8rem;border-top:1px solid var(--line)}
.reason{font-size:1.1rem;margin:0;max-width:46rem}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
span.good,span.warn,span.bad{white-space:nowrap;font-weight:600;font-size:.9rem}
.figures{display:flex;flex-wrap:wrap;gap:.6rem 2.2rem;margin:1.4rem 0 0}
.figures dt{color:var(--soft);font-size:.85rem}
.figures dd{margin:0;font-size:1.25rem;font-weight:600}
.wide{overflow-x:auto;margin:.6rem 0}
figure svg{display:block;width:100%;min-width:34rem;height:auto;background:#fff;border-radius:4px}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th{text-align:left;font-weight:600;color:var(--soft)}
td,th{padding:.3rem .9rem .3rem 0;vertical-align:top;border-bottom:1px solid var(--line)}
td:nth-child(2){min-width:4.2rem}
code{font-size:.88em;overflow-wrap:anywhere}
summary{cursor:pointer;color:var(--soft);margin:.4rem 0}
@media (prefers-color-scheme:dark){
:root{--ink:#e5e7eb;--soft:#9ca3af;--line:#374151;--paper:#111827;--good:#34d399;--warn:#fbbf24;
--bad:#f87171}}
@media print{details{display:block}main{max-width:none}section{break-inside:avoid}}
"""
