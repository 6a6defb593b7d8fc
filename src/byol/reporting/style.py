"""How the page looks: one style sheet, light and dark, screen and paper. Colours: Okabe & Ito 2008 and Tol's muted set, for every eye."""

STYLE = """
:root{
  color-scheme:light dark;--paper:#fbfbf9;--card:#fff;--ink:#1b1c1e;--soft:#5d6166;--faint:#e3e3de;--accent:#0b62a4;
  --good:#00795c;--doubt:#a85f00;--bad:#b3361b;--k0:#0072b2;--k1:#d55e00;--k2:#009e73;--k3:#b0578f;--k4:#8a6d00;
  --k5:#3aa0d8;--k6:#222;--k7:#8c8c8c;--m0:#cc6677;--m1:#332288;--m2:#c9b35a;--m3:#117733;--m4:#55acd8;--m5:#882255;
  --m6:#44aa99;--m7:#7d7d1f;--m8:#aa4499;--m9:#d57a2a;--m10:#9a9a9a;
}
:root[data-theme=light]{color-scheme:light}
@media(prefers-color-scheme:dark){
  :root:not([data-theme=light]){DARK}
}
:root[data-theme=dark]{color-scheme:dark;DARK}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{
  margin:0;background:var(--paper);color:var(--ink);
  font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Noto Sans",sans-serif;
}
main{max-width:1120px;margin:0 auto;padding:28px 24px 64px}
header{border-bottom:1px solid var(--faint);padding-bottom:8px;margin-bottom:8px}
.top{display:flex;justify-content:space-between;align-items:baseline;gap:16px;color:var(--soft);font-size:14px}
.top>span{overflow-wrap:anywhere}
h1{
  font-size:clamp(23px,3.6vw,34px);line-height:1.18;font-weight:650;letter-spacing:-.015em;margin:14px 0 10px;
  text-wrap:balance;
}
h1 .mood{display:inline-block;width:.5em;height:.5em;border-radius:50%;margin-right:.32em;vertical-align:.1em}
.good{--mood:var(--good)}
.doubt{--mood:var(--doubt)}
.bad{--mood:var(--bad)}
h1 .mood{background:var(--mood)}
h2{font-size:21px;font-weight:650;margin:52px 0 6px;letter-spacing:-.01em}
h3{font-size:16px;font-weight:650;margin:26px 0 4px}
h2 small,h3 small{font-weight:400;color:var(--soft);font-size:14px;margin-left:6px}
p{margin:6px 0 12px;max-width:46em}
small,.note,.more,figcaption,.legend,.ends{color:var(--soft);font-size:13.5px}
.lead{font-size:16px;color:var(--soft);overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:14px;margin:12px 0}
a{color:var(--accent);text-decoration:none}
a:hover{text-decoration:underline}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.command{
  background:var(--card);border:1px solid var(--faint);border-radius:5px;padding:1px 6px;overflow-wrap:anywhere;
  box-decoration-break:clone;-webkit-box-decoration-break:clone;
}
.missing{border-left:3px solid var(--doubt);padding:2px 0 2px 12px;color:var(--soft);overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:14px 28px;margin:20px 0}
.facts dt{color:var(--soft);font-size:13.5px}
.facts dd{margin:0;font-size:20px;font-weight:600;letter-spacing:-.01em;overflow-wrap:anywhere}
.facts dd.more{font-size:13.5px;font-weight:400;letter-spacing:0}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(310px,1fr));gap:26px 28px;margin-top:16px}
.bars{display:grid;grid-template-columns:repeat(auto-fill,minmax(310px,1fr));gap:18px 28px;margin:10px 0 6px}
figure{margin:0}
.chart{min-width:0;break-inside:avoid}
.chart svg{display:block;width:100%;max-width:480px;height:auto;touch-action:pan-y;outline-offset:4px}
.chart .head{display:flex;flex-wrap:wrap;align-items:baseline;gap:0 6px;font-size:14.5px;white-space:nowrap}
.chart .head small{overflow:hidden;text-overflow:ellipsis}
.chart output{margin-left:auto;display:flex;gap:8px;font-variant-numeric:tabular-nums;flex-wrap:wrap}
.chart figcaption{font-size:13px;line-height:1.4;margin-top:2px}
.many .head output{flex-basis:100%;justify-content:flex-start}
.chart text{font-size:11px;fill:var(--soft);font-variant-numeric:tabular-nums}
.chart text.second{font-size:10px;opacity:.8}
.chart text.strong{fill:var(--ink);font-weight:600}
.chart text.foot.second{opacity:1}
.chart text.foot{
  font-weight:600;fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:9px;stroke-linejoin:round;
}
.chart text.name,.chart text.guide-label{
  paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round;
}
.grid{stroke:var(--faint)}
.axis{stroke:var(--soft);stroke-width:.8}
.guide{stroke:var(--soft);stroke-dasharray:2 3;stroke-width:.9}
.hair{stroke:var(--ink);stroke-width:.8;opacity:.6}
.curve{fill:none;stroke-width:1.5;stroke-linejoin:round;stroke-linecap:round}
.d1{stroke-dasharray:5 3}
.d2{stroke-dasharray:1.5 3}
.d3{stroke-dasharray:8 3 2 3}
.d5{stroke-dasharray:5 3}
.d6{stroke-dasharray:1.5 3}
.d7{stroke-dasharray:8 3 2 3}
.bar.base{fill:var(--k7);opacity:.55}
.bar.own{fill:var(--k0)}
.whisker{fill:none;stroke:var(--ink);stroke-width:1.2}
.strip{display:block;border-radius:3px;margin-top:12px}
.vOK{fill:var(--good)}
.vWARN{fill:var(--doubt)}
.vCOLLAPSED{fill:var(--bad)}
.tWARN{color:var(--doubt)}
.tCOLLAPSED{color:var(--bad)}
.ends{display:flex;justify-content:space-between;font-size:12.5px}
.verdicts{padding-left:18px;margin:6px 0}
.verdicts li{margin:2px 0;max-width:60em}
.legend{max-width:none;display:flex;flex-wrap:wrap;gap:2px 16px}
.legend span{display:inline-flex;align-items:center;gap:6px;overflow-wrap:anywhere}
.legend svg{flex:none}
.key{width:11px;height:11px;border-radius:3px;flex:none;background:var(--c)}
.scroll{overflow-x:auto;max-width:100%;margin:8px 0}
table{border-collapse:collapse;font-size:14px}
th,td{text-align:left;vertical-align:top;padding:5px 18px 5px 0;border-bottom:1px solid var(--faint);font-weight:400}
thead th{color:var(--soft);font-size:13px}
thead th:empty{padding:0}
.numbers td{font-variant-numeric:tabular-nums;white-space:nowrap;font-weight:600}
.numbers td small{display:block;font-weight:400;font-size:12px}
.numbers td.gain{color:var(--accent)}
.numbers td.mode{font-weight:400}
.wide th small{display:block;max-width:30em}
.wide td.value{font-weight:400;white-space:normal}
.plan td.value{white-space:nowrap;font-weight:600}
.plan td:last-child,.names td{color:var(--soft)}
.names th{overflow-wrap:anywhere;min-width:9em}
.break{overflow-wrap:anywhere}
.names td,.names th,.versions td{max-width:44em;overflow-wrap:anywhere}
.words{white-space:pre-wrap;color:var(--soft);margin:8px 0}
img{display:block;width:100%;border-radius:4px;aspect-ratio:1;background:var(--faint)}
.pixels,.map.pixels i{image-rendering:pixelated}
.seen{display:flex;flex-wrap:wrap;gap:12px 32px;align-items:start}
.seen .scroll{flex:0 1 auto}
.seen .words{flex:1 1 260px;max-width:46em;font:inherit;font-size:13.5px}
img.drawn{width:auto;max-width:100%;aspect-ratio:auto}
.views{display:grid;grid-template-columns:repeat(var(--columns),minmax(84px,132px));gap:8px;min-width:max-content}
.views .column{font-size:12.5px;color:var(--soft)}
.clouds{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,220px),1fr));gap:8px;max-width:1072px;margin-top:8px}
.matches{margin:8px 0 26px}
.matches svg{display:block}
.matches>svg{width:100%;max-width:720px;height:auto;border-radius:4px}
.match{stroke-width:1.4;vector-effect:non-scaling-stroke}
.match.right{stroke:var(--k0)}
.match.wrong{stroke:var(--k1);stroke-dasharray:4 3}
h4{font-size:14px;font-weight:650;margin:22px 0 0;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,500px),1fr));gap:24px 32px;margin-top:14px}
.card{display:grid;grid-template-columns:minmax(64px,96px) 1fr;gap:14px;break-inside:avoid;min-width:0}
.card figcaption{
  font-size:11.5px;line-height:1.3;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;
  font-variant-numeric:tabular-nums;
}
.answers{display:grid;gap:8px;min-width:0}
.answer{display:grid;grid-template-columns:repeat(6,minmax(0,1fr));gap:6px}
.answer .way{grid-column:1/-1;font-size:12px;color:var(--soft);line-height:1}
.answer .same img{outline:2px solid var(--good);outline-offset:-2px}
.answer figcaption span{color:var(--good);margin-left:3px}
.bar-over{display:flex;justify-content:space-between;align-items:baseline;gap:16px}
.atlas label{flex:none;font-size:13.5px;color:var(--soft);cursor:pointer}
.map{
  position:relative;margin:8px auto;width:100%;max-width:1072px;background:var(--card);border:1px solid var(--faint);
  border-radius:8px;print-color-adjust:exact;-webkit-print-color-adjust:exact;
}
.map i{
  display:none;position:absolute;left:var(--x);top:var(--y);width:7px;height:7px;border-radius:50%;
  transform:translate(-50%,-50%);background-color:var(--c);background-size:0 0;background-repeat:no-repeat;
  background-position:var(--p);
}
.map i.framed{
  display:block;left:var(--u);top:var(--v);width:calc(var(--cell) - 2px);height:auto;aspect-ratio:1;border-radius:3px;
  box-shadow:0 0 0 1.5px var(--c);background-image:var(--sheet);background-size:var(--size);
}
.atlas:has(.dots:checked) .map i{
  display:block;left:var(--x);top:var(--y);width:7px;height:7px;border-radius:50%;box-shadow:none;background-size:0 0;
}
.map i:hover,.map i:focus-visible,.map i.playing,
.atlas:has(.dots:checked) .map i:is(:hover,:focus-visible,.playing){
  width:96px;height:96px;border-radius:6px;z-index:2;background-image:var(--sheet);background-size:var(--size);
  box-shadow:0 0 0 3px var(--c),0 6px 24px #0006;
}
.map.heard i:not([data-hear]){opacity:.45}
[role=button]{cursor:pointer}
img:focus-visible,.map i:focus-visible{outline:3px solid var(--ink);outline-offset:2px}
img.playing,.map i.playing{outline:3px solid var(--accent);outline-offset:2px}
.clips ul{list-style:none;padding:0;margin:8px 0;columns:auto 320px;column-gap:28px}
.clips li{display:flex;align-items:center;gap:10px;font-size:13.5px;break-inside:avoid;overflow-wrap:anywhere}
.clips audio{width:120px;height:32px;flex:none}
KEYS
.copyable{position:relative}
pre{margin:0;overflow-x:auto}
.copyable pre{
  background:var(--card);border:1px solid var(--faint);border-radius:8px;padding:12px 80px 12px 14px;
  max-height:460px;overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere;
}
button{
  font:13px system-ui,sans-serif;color:var(--soft);background:var(--paper);border:1px solid var(--faint);
  border-radius:6px;padding:2px 10px;cursor:pointer;
}
.copy{position:absolute;right:8px;top:8px}
details{margin:10px 0}
summary{cursor:pointer;color:var(--accent);font-size:14px}
article>section>h3{font-size:18px;margin-top:40px}
article h3{margin-top:18px}
article>h2:first-child{font-size:26px;border-top:1px solid var(--faint);padding-top:30px}
footer{margin-top:56px;border-top:1px solid var(--faint);padding-top:10px}
@media(max-width:560px){
  main{padding:18px 14px 48px}
  .card{grid-template-columns:64px 1fr;gap:10px}
  .answer{gap:4px}
  .card figcaption{font-size:10px}
  .map i{width:4px;height:4px}
  .map i.framed:not(:hover,:focus-visible,.playing){box-shadow:0 0 0 1px var(--c);width:calc(var(--cell) - 1px)}
  .facts{grid-template-columns:1fr 1fr;gap:14px 18px}
  .facts dd{font-size:17px}
}
@media(max-width:560px){
  .plan,.plan tbody{display:block}
  .plan thead{display:none}
  .plan tr{display:grid;grid-template-columns:1fr 1fr;border-bottom:1px solid var(--faint);padding:5px 0}
  .plan th,.plan td{border:0;padding:0 8px 0 0;overflow-wrap:anywhere}
  .plan td.value{white-space:normal}
  .plan td:last-child{grid-column:1/-1;font-size:13px}
}
@media print{
  :root{--paper:#fff}
  body{font-size:11pt}
  main{max-width:none;padding:0}
  nav,button,.atlas label,.clips{display:none!important}
  .cards{grid-template-columns:1fr 1fr}
  h2{break-after:avoid}
  .copyable pre{max-height:none}
  tr{break-inside:avoid}
}
"""

_DARK = (
    "--paper:#131518;--card:#1a1d21;--ink:#e9e9e6;--soft:#a0a4a9;--faint:#2d3136;--accent:#6db8f0;"
    "--good:#35b894;--doubt:#e0a040;--bad:#f0795c;"
    "--k0:#56b4e9;--k1:#f08c4a;--k2:#2bc096;--k3:#d98bbd;--k4:#e0c341;--k5:#8fd0f5;--k6:#eee;--k7:#8a8f94;"
    "--m0:#e38896;--m1:#8f83e0;--m2:#ddcc77;--m3:#4fb36f;--m4:#88ccee;--m5:#d0609a;"
    "--m6:#5fc9b8;--m7:#b5b550;--m8:#cc78bd;--m9:#ee9d55;--m10:#777c82"
)
_KEYS = "".join(
    f".k{i}{{stroke:var(--k{i})}}.dot.k{i}{{fill:var(--k{i});stroke:none}}.chart .c{i}{{fill:var(--k{i});color:var(--k{i})}}"
    for i in range(8)
)
_CLASSES = "".join(f".map .k{i},.key.k{i}{{--c:var(--m{i})}}" for i in range(11))


def style() -> str:
    """The style sheet."""
    return STYLE.replace("DARK", _DARK).replace("KEYS", _KEYS + _CLASSES).strip()
