"""The report's style sheet: light or dark as the reader's screen is, readable on a phone, prints well.

It needs no font or file from elsewhere.
"""

STYLE = """
:root{color-scheme:light dark;--ink:#1f2933;--grey:#5f6b7a;--line:#d8dee6;--bad:#b34700;--good:#005a8c;
--page:#f4f6f9;--card:#fff}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e4e9ef;--grey:#a3afbd;--line:#333d48;
--bad:#ff9c5a;--good:#74bdf0;--page:#11151a;--card:#1a2027}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1000px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:28px;line-height:1.2;margin:0 0 8px;letter-spacing:-.01em}
h2{font-size:19px;margin:0 0 4px}
h3{font-size:15px;margin:20px 0 6px;color:var(--grey);font-weight:600}
p{margin:0 0 14px;color:var(--grey);max-width:80ch}
.short{margin:0;padding-left:20px;max-width:80ch}
.short li{margin:4px 0}
.note{font-size:13px;margin:8px 0 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(168px,1fr));gap:12px;margin:20px 0}
.card,section{background:var(--card);border:1px solid var(--line);border-radius:8px}
.card{padding:14px 16px}
.card .name{font-size:13px;color:var(--grey)}
.card .value{font-size:24px;font-weight:650;font-variant-numeric:tabular-nums;white-space:nowrap}
.card .words{font-size:12.5px;color:var(--grey);line-height:1.4;overflow-wrap:anywhere}
section{padding:20px 22px;margin:16px 0}
svg{display:block;width:100%;height:auto;margin:6px 0}
svg.gauge{width:204px;display:inline-block;vertical-align:middle;margin:0}
svg text{font-size:13.5px;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums;margin-top:8px}
th{font-weight:600;color:var(--grey);text-align:left;font-size:13px}
th,td{padding:6px 10px;border-bottom:1px solid var(--line);vertical-align:middle}
.what{font-size:12px;color:var(--grey)}
tbody tr:last-child td{border-bottom:0}
.number{text-align:right;white-space:nowrap}
.bad{color:var(--bad)}.good{color:var(--good)}
@media (max-width:640px){main{padding:20px 12px 40px}section{padding:16px 14px}h1{font-size:23px}
.cards{grid-template-columns:1fr 1fr}.card{padding:10px 12px}.card .value{font-size:19px}
svg.chart{width:600px}table{font-size:13px}th,td{padding:5px 6px}.more{display:none}svg.gauge{width:96px}}
@media print{body{background:#fff;font-size:12px}main{max-width:none;padding:0}
.card,section{break-inside:avoid;border-color:#bbb}
svg rect{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
