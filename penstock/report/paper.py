"""The style of documents that are signed and filed: facts, gaps, empty lines, and print."""

PRINTED = """
.loud{border:3px solid var(--bad);color:var(--bad);font-weight:700;font-size:1.15rem;
padding:.6rem .9rem;margin:1rem 0}
dl.facts{display:grid;grid-template-columns:minmax(9rem,14rem) 1fr;gap:.3rem 1rem;margin:.5rem 0}
dl.facts dt{color:var(--soft)}dl.facts dd{margin:0;overflow-wrap:anywhere}
pre{overflow-x:auto;white-space:pre-wrap;background:rgba(107,114,128,.12);padding:.6rem .8rem;
border-radius:4px;font-size:.85rem}
.nothing{color:var(--warn);font-style:italic}td.line{min-width:9rem;height:2.6rem}
ul{padding-left:1.2rem;margin:.4rem 0}td{overflow-wrap:break-word}
td.long{overflow-wrap:anywhere;min-width:11rem}
@media(max-width:38rem){dl.facts{grid-template-columns:1fr;gap:0}dl.facts dd{margin-bottom:.5rem}
main{padding:1rem .8rem 3rem}h1{font-size:1.7rem}td,th{padding-right:.6rem}}
@media print{details::details-content{content-visibility:visible;display:block}
summary{display:none}body{font-size:11pt}a{color:inherit}}
"""
