"""The frame of the report: style sheet, script, and a content policy that lets nothing else run or load."""

from __future__ import annotations

import base64
import hashlib

from assay.charts import attribute


def page(title: str, body: str) -> str:
    """The whole HTML file. Only the script below may run: the policy names its hash, and forbids every request."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{attribute(title)}</title><style>{STYLE}</style></head>\n"
        f'<body>{PATTERNS}{body}<div id="tip" role="status" hidden></div><script>{SCRIPT}</script></body></html>\n'
    )


PATTERNS = (
    '<svg width="0" height="0" class="defs" aria-hidden="true"><defs><pattern id="hatch" width="6" height="6" '
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="hatch-ground" width="6" height="6"/>'
    '<path class="hatch-line" d="M0,0V6"/></pattern></defs></svg>'
)

_LIGHT = """
--page:#f6f5f1;--card:#fffefb;--ink:#1b1f26;--soft:#565d69;--faint:#6f7683;--rule:#e4e1d8;--well:#f3f1ea;
--c0:#0b66ad;--c1:#cf5200;--c2:#00805f;--c3:#a9468f;--c4:#d99400;--c5:#49a9dc;--c6:#8b919b;--c7:#2b303a;
--good:#00704f;--watch:#8a5a00;--bad:#b3261e;--good-bg:#e2f2ea;--watch-bg:#fbeed2;--bad-bg:#fbe4e0;
--shadow:0 1px 2px #0000000d;
"""
_DARK = """
--page:#121519;--card:#1a1e24;--ink:#e9ebee;--soft:#aab1bc;--faint:#8c949f;--rule:#2c323a;--well:#14181d;
--c0:#62b0f2;--c1:#ff8b4d;--c2:#35c79d;--c3:#e290cf;--c4:#ffc352;--c5:#9bd8ff;--c6:#8f97a3;--c7:#e9ebee;
--good:#5fd8a9;--watch:#ffc866;--bad:#ff8f84;--good-bg:#15342a;--watch-bg:#3a2d12;--bad-bg:#43201d;--shadow:none;
"""

STYLE = (
    f":root{{color-scheme:light dark;{_LIGHT}}}"
    f"@media(prefers-color-scheme:dark){{:root:not([data-theme=light]){{{_DARK}}}}}"
    f":root[data-theme=dark]{{color-scheme:dark;{_DARK}}}:root[data-theme=light]{{color-scheme:light}}"
    """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
  font:15px/1.55 ui-sans-serif,system-ui,-apple-system,"Segoe UI",Inter,Roboto,"Helvetica Neue","Liberation Sans",
  Arial,sans-serif;font-variant-numeric:tabular-nums;-webkit-font-smoothing:antialiased}
main,header,nav.top,footer{max-width:1200px;margin:0 auto;padding:0 32px}
h1,.lede,h2{font-family:"Iowan Old Style","Palatino Linotype",Palatino,Charter,Georgia,"Liberation Serif",serif;
  font-weight:500}
h1{font-size:44px;line-height:1.1;margin:4px 0 14px;letter-spacing:-.015em;overflow-wrap:anywhere}
.lede{font-size:22px;line-height:1.4;color:var(--ink);max-width:46em;margin:0 0 22px}
h2{font-size:28px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em}
h3{font-size:15.5px;margin:0;font-weight:650;line-height:1.35}
section{padding:44px 0 0}
section>p.about{color:var(--soft);margin:0 0 20px;max-width:56em}
header{padding-top:40px;padding-bottom:4px}
.eyebrow{font-size:12px;letter-spacing:.14em;text-transform:uppercase;color:var(--faint);font-weight:600}
.meta{display:flex;flex-wrap:wrap;gap:6px 28px;color:var(--soft);font-size:13.5px;margin:0;padding:0}
.meta div{display:flex;gap:7px}
.meta dt{color:var(--faint)}
.meta dd{margin:0;color:var(--ink);overflow-wrap:anywhere}
nav.top{display:flex;flex-wrap:wrap;gap:4px 22px;align-items:center;font-size:13.5px;margin-top:24px}
nav.top>div{display:flex;flex-wrap:wrap;gap:4px 22px;flex:1;border-top:1px solid var(--rule);
  border-bottom:1px solid var(--rule);padding:10px 0}
a{color:inherit;text-decoration-color:var(--faint);text-underline-offset:3px}
nav a{text-decoration:none;color:var(--soft)}
nav a:hover{color:var(--ink)}
button{font:inherit;color:var(--soft);background:none;border:0;padding:0;cursor:pointer;margin-left:auto}
button:hover{color:var(--ink)}
:focus-visible{outline:2px solid var(--c0);outline-offset:3px;border-radius:3px}
.card{background:var(--card);border:1px solid var(--rule);border-radius:12px;box-shadow:var(--shadow);
  padding:20px 22px;margin:0;min-width:0}
.grid2{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:20px}
.good{color:var(--soft);font-size:13.5px;margin:2px 0 0;line-height:1.45}
.empty p{color:var(--faint);margin:6px 0 0}
.legend{display:flex;flex-wrap:wrap;gap:3px 18px;font-size:13px;color:var(--soft);margin:12px 0 6px;min-height:20px}
.key{display:inline-flex;align-items:center;gap:7px;white-space:nowrap}
.key b{color:var(--ink);font-weight:600}
.swatch{display:inline-block;width:18px;height:0;border-top:2.5px solid var(--c)}
.swatch.dash1{border-top-style:dashed}
.swatch.dash2{border-top-style:dotted}
.swatch.area-key{width:11px;height:11px;border:0;border-radius:3px;background:var(--c)}
.swatch.area-key.hatch{background:repeating-linear-gradient(45deg,var(--bad) 0 2px,var(--card) 2px 4px);
  border:1px solid var(--bad)}
.ideal-key{border-top:1.5px dashed var(--faint)}
.c0{--c:var(--c0)}
.c1{--c:var(--c1)}
.c2{--c:var(--c2)}
.c3{--c:var(--c3)}
.c4{--c:var(--c4)}
.c5{--c:var(--c5)}
.c6{--c:var(--c6)}
.c7{--c:var(--c7)}
.chart{display:flex;flex-direction:column}
.plot{position:relative;margin-top:auto}
.stack{display:grid;gap:20px}
.below{margin-top:18px}
.plot svg,.spark svg{display:block;width:100%;height:auto;overflow:visible}
.line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.line.dash1{stroke-dasharray:7 4}
.line.dash2{stroke-dasharray:1.5 4.5}
.line.faint{opacity:.3;stroke-width:1.1;stroke-dasharray:none}
.band{fill:var(--c);opacity:.09}
.area{fill:var(--c);stroke:var(--card);stroke-width:.7}
.area.hatch{fill:url(#hatch);stroke:none}
.hatch-ground{fill:var(--card)}
.hatch-line{stroke:var(--bad);stroke-width:4}
.dot{fill:var(--c);stroke:var(--card);stroke-width:1.2}
.ideal{stroke:var(--faint);stroke-width:1.2;stroke-dasharray:4 4}
.broken{fill:var(--bad)}
.grid{stroke:var(--rule);stroke-width:1}
.base{stroke:var(--faint);stroke-width:1}
.tick,.axis-label{font-size:11.5px;fill:var(--faint)}
.cursor{stroke:var(--ink);stroke-width:1;opacity:0}
.plot:hover .cursor.on{opacity:.45}
.defs{position:absolute}
#tip{position:fixed;z-index:9;pointer-events:none;background:var(--ink);color:var(--page);border-radius:8px;
  padding:8px 11px;font-size:12.5px;line-height:1.5;box-shadow:0 6px 20px #0003}
#tip[hidden]{display:none}
#tip strong{display:block;font-weight:600}
#tip div{display:flex;gap:14px;justify-content:space-between}
#tip b{font-weight:600}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th{font-size:12.5px;font-weight:600;color:var(--faint);text-align:left;padding:0 18px 8px 0;
  border-bottom:1px solid var(--rule);vertical-align:bottom}
td{padding:14px 18px 14px 0;border-bottom:1px solid var(--rule);vertical-align:top}
tr:last-child td{border-bottom:0;padding-bottom:2px}
.headline td{width:30%}
.headline td:first-child{width:16%}
.policy{font-weight:650;font-size:17px}
.policy small,td small{display:block;color:var(--faint);font-weight:400;font-size:12.5px;line-height:1.4}
.big{font-size:27px;font-weight:600;letter-spacing:-.02em;line-height:1.15}
.pm{color:var(--soft);font-size:14px;margin-left:7px;white-space:nowrap}
.rate{position:relative;height:8px;margin:11px 0 8px;border-radius:4px;background:var(--rule)}
.bar{position:absolute;inset:0 auto 0 0;border-radius:4px;background:var(--c)}
.whisker{position:absolute;top:-3px;bottom:-3px;border:solid var(--ink);border-width:0 1.5px}
.whisker:before{content:"";position:absolute;left:0;right:0;top:50%;border-top:1.5px solid var(--ink);
  transform:translateY(-50%)}
.delta{font-size:13px;font-weight:600}
.up{color:var(--good)}
.down{color:var(--bad)}
.flat{color:var(--soft)}
.absent{color:var(--faint)}
.plain td{padding:7px 18px 7px 0;font-size:14px}
.plain .number,.plain th.number{text-align:right;white-space:nowrap}
.checks{list-style:none;padding:0 22px;overflow:hidden;display:grid;
  grid-template-columns:repeat(2,minmax(0,1fr));gap:0 40px}
.checks li{display:grid;grid-template-columns:76px 1fr;gap:4px 12px;padding:13px 0;
  border-top:1px solid var(--rule);margin-top:-1px;align-items:start}
.checks p{margin:1px 0 0;color:var(--soft);font-size:13.5px;line-height:1.45}
.tag{display:inline-block;font-size:12px;font-weight:650;border-radius:999px;padding:1px 10px;white-space:nowrap;
  line-height:1.6;text-align:center}
.tag.good{color:var(--good);background:var(--good-bg);margin:0}
.tag.watch{color:var(--watch);background:var(--watch-bg)}
.tag.bad{color:var(--bad);background:var(--bad-bg)}
.tag.none{color:var(--soft);background:var(--well)}
.stats{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:22px 24px;margin:20px 0 0}
.stats dt{color:var(--faint);font-size:13px}
.stats dd{margin:0;font-size:27px;font-weight:600;letter-spacing:-.02em;line-height:1.2}
.stats small{display:block;font-size:12.5px;font-weight:400;color:var(--soft);letter-spacing:0;line-height:1.4;
  margin-top:2px}
.sparks{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:26px 32px}
.spark-name{font-size:13px;color:var(--soft);overflow-wrap:anywhere}
.spark-value{font-size:19px;font-weight:600;letter-spacing:-.01em}
.spark-value small{font-size:12px;color:var(--faint);font-weight:400;letter-spacing:0}
.spark-range{font-size:12px;color:var(--faint)}
.tabs>input{position:absolute;opacity:0;pointer-events:none}
.tabs>label{display:inline-block;padding:6px 16px;margin:0 6px 18px 0;border:1px solid var(--rule);
  border-radius:999px;font-size:14px;color:var(--soft);cursor:pointer;background:var(--card)}
.tabs>input:checked+label{background:var(--ink);color:var(--page);border-color:var(--ink)}
.tabs>input:focus-visible+label{outline:2px solid var(--c0);outline-offset:2px}
.panel{display:none}
#tab0:checked~#panel0,#tab1:checked~#panel1,#tab2:checked~#panel2{display:block}
.group{margin:0 0 20px}
.group>header{max-width:none;padding:0;margin:0 0 12px;display:flex;flex-wrap:wrap;gap:2px 14px;
  align-items:baseline}
.group>header span{color:var(--faint);font-size:13px}
.pair{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:28px;margin-top:16px}
.sample{min-width:0}
.sample-head{display:flex;flex-wrap:wrap;align-items:center;gap:4px 12px}
.sample-head strong{font-size:14.5px}
.facts{display:flex;flex-wrap:wrap;gap:2px 18px;margin:8px 0 0;font-size:13px;color:var(--faint)}
.facts b{color:var(--ink);font-weight:600}
.tests{display:flex;flex-wrap:wrap;gap:4px;margin:10px 0 0;align-items:center}
.tests i{font-style:normal;font-size:11px;font-weight:650;border-radius:4px;padding:0 6px;line-height:19px}
.tests span{font-size:12.5px;color:var(--faint);margin-right:4px}
pre{font:12.5px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono","DejaVu Sans Mono",monospace;
  background:var(--well);border-radius:8px;padding:12px 14px;margin:10px 0 0;overflow:auto;max-height:340px;
  white-space:pre;tab-size:4}
pre.wrap{white-space:pre-wrap;overflow-wrap:anywhere}
pre.detail{border-left:3px solid var(--watch);border-radius:0 8px 8px 0;max-height:150px}
pre.config{max-height:560px;background:none;padding:0;margin:14px 0 0}
.yaml-key{color:var(--c0)}
details{margin-top:10px}
summary{cursor:pointer;color:var(--soft);font-size:13.5px}
summary:hover{color:var(--ink)}
.hidden-char{background:var(--bad-bg);color:var(--bad);border-radius:3px;padding:0 3px;font-size:.85em}
.lineage{list-style:none;margin:0;padding:0}
.lineage>li{position:relative;padding:0 0 22px 28px}
.lineage>li:before{content:"";position:absolute;left:5px;top:7px;width:9px;height:9px;border-radius:50%;
  background:var(--card);border:2.5px solid var(--c0)}
.lineage>li:after{content:"";position:absolute;left:11px;top:23px;bottom:-4px;width:2px;background:var(--rule)}
.lineage>li:last-child:after{display:none}
.lineage>li:last-child{padding-bottom:0}
.lineage .facts{margin-top:2px}
.lineage code,td code,.absent-list code,.meta code{font:12.5px ui-monospace,Menlo,Consolas,"Liberation Mono",
  monospace;overflow-wrap:anywhere}
.absent-list{margin:0;padding-left:18px;color:var(--soft)}
footer{padding-top:48px;padding-bottom:60px;color:var(--faint);font-size:13px}
@media(max-width:860px){
  main,header,nav.top,footer{padding-left:16px;padding-right:16px}
  .grid2,.pair,.checks{grid-template-columns:minmax(0,1fr)}
  h1{font-size:32px}
  .lede{font-size:18px}
  .card{padding:16px}
  .tick,.axis-label{font-size:15px}
  .headline td{min-width:210px}
  .headline td:first-child{min-width:90px}
}
@media print{
  nav.top{display:none}
  .card{break-inside:avoid}
  pre{max-height:none}
  .panel{display:block}
}
"""
)

SCRIPT = """
"use strict";
const tip = document.getElementById("tip");
for (const plot of document.querySelectorAll(".plot")) {
  const source = plot.querySelector("script");
  if (!source) continue;
  const data = JSON.parse(source.textContent), svg = plot.querySelector("svg"), cursor = svg.querySelector(".cursor");
  const width = svg.viewBox.baseVal.width;
  plot.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width;
    let near = 0;
    data.at.forEach((x, i) => { if (Math.abs(x - at) < Math.abs(data.at[near] - at)) near = i; });
    cursor.setAttribute("x1", data.at[near] * width);
    cursor.setAttribute("x2", data.at[near] * width);
    cursor.classList.add("on");
    const head = document.createElement("strong");
    head.textContent = "step " + data.steps[near];
    tip.replaceChildren(head);
    for (const one of data.series) {
      if (one.values[near] === null) continue;
      const row = document.createElement("div"), name = document.createElement("span");
      const value = document.createElement("b");
      name.textContent = one.label;
      value.textContent = one.values[near];
      row.append(name, value);
      tip.append(row);
    }
    tip.hidden = false;
    const wide = tip.offsetWidth, x = event.clientX + 16;
    tip.style.left = (x + wide > innerWidth - 8 ? event.clientX - wide - 16 : x) + "px";
    tip.style.top = Math.max(8, Math.min(event.clientY - 20, innerHeight - tip.offsetHeight - 8)) + "px";
  });
  plot.addEventListener("pointerleave", () => { tip.hidden = true; cursor.classList.remove("on"); });
}
const toggle = document.getElementById("theme");
if (toggle) toggle.addEventListener("click", () => {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = root.dataset.theme || (dark ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
});
"""
