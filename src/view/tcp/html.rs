//! The whole capture as one HTML page that needs nothing else.

use std::fmt::Write;

use super::plot::plots;
use super::svg::{escape, svg};
use crate::tcp::words;
use crate::tcp::{Connection, ConnectionReport, Severity, Tally};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;width:100%;font-size:13px}\
td,th{border-bottom:1px solid #ddd;padding:3px 6px;text-align:left;vertical-align:top}code{font-size:13px}\
.error{color:#c00}.warn{color:#b60}.note{color:#06a}.plots svg{margin:4px;border:1px solid #ddd}svg{max-width:100%;height:auto}\
details{margin:.5em 0}.verdict{font-size:1.05em}";

fn class(severity: Option<Severity>) -> &'static str {
    match severity {
        Some(Severity::Error) => "error",
        Some(Severity::Warn) => "warn",
        Some(Severity::Note) => "note",
        _ => "",
    }
}

/// The page. `drawn` are the connections whose segments were kept; the table has all reports.
pub fn html(
    title: &str,
    reports: &[ConnectionReport],
    drawn: &[Connection],
    tally: &Tally,
    partial: Option<&str>,
) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><h1>TCP in {title}</h1>",
        title = escape(title)
    );
    let bad = reports.iter().filter(|report| report.has_problem()).count();
    let _ = write!(
        page,
        "<p>{} with {bad} to look at; {} TCP of {} frames, {}.</p>",
        words::count(reports.len() as u64, "connection"),
        tally.segments,
        tally.frames,
        words::octets(tally.bytes)
    );
    if let Some(partial) = partial {
        let _ = write!(page, "<p class=\"error\">Partial: {}</p>", escape(partial));
    }
    page.push_str("<table><tr><th>#<th>client<th>server<th>state<th>Zeek<th>verdict</tr>");
    for report in reports {
        let _ = write!(
            page,
            "<tr><td><a href=\"#s{n}\">{n}</a><td>{}<td>{}<td>{}<td><code>{} {}</code><td class=\"{}\">{}</tr>",
            escape(&report.client),
            escape(&report.server),
            report.state,
            report.zeek.state,
            escape(&report.zeek.history),
            class(report.severity),
            escape(&report.verdict),
            n = report.stream,
        );
    }
    page.push_str("</table>");
    for connection in drawn {
        let Some(report) = reports.iter().find(|report| report.stream == connection.stream) else { continue };
        one(&mut page, report, connection);
    }
    page.push_str("</html>\n");
    page
}

fn one(page: &mut String, report: &ConnectionReport, connection: &Connection) {
    let _ = write!(
        page,
        "<h2 id=\"s{}\">#{} {} → {}</h2><p class=\"verdict {}\">{}</p>",
        report.stream,
        report.stream,
        escape(&report.client),
        escape(&report.server),
        class(report.severity),
        escape(&report.verdict)
    );
    if !report.findings.is_empty() {
        let _ = write!(
            page,
            "<details{}><summary>{}</summary><table><tr><th>frame<th>code<th></tr>",
            if report.has_problem() { " open" } else { "" },
            words::count(report.findings.len() as u64, "finding")
        );
        for finding in report.findings.iter().take(500) {
            let _ = write!(
                page,
                "<tr><td>{}<td class=\"{}\">{}<td>{}</tr>",
                finding.frame,
                class(Some(finding.severity)),
                finding.code,
                escape(&finding.message)
            );
        }
        page.push_str("</table></details>");
    }
    let limits = |name: &str, flow: &crate::tcp::FlowReport| {
        format!(
            "<tr><td>{name}<td>{}<td>{}<td>{}<td>{} ms<td>{} ms<td>{} ms<td>{} ms</tr>",
            flow.packets,
            words::octets(flow.data),
            flow.retransmissions,
            flow.limited.sender_ms,
            flow.limited.receiver_ms,
            flow.limited.loss_ms,
            flow.limited.network_ms
        )
    };
    let _ = write!(
        page,
        "<table><tr><th>from<th>packets<th>data<th>sent again<th>limited by sender<th>by receiver<th>by loss<th>by network</tr>{}{}</table>",
        limits("client", &report.from_client),
        limits("server", &report.from_server)
    );
    let _ = write!(page, "<div class=\"plots\">{}</div>", plots(connection));
    let _ = write!(page, "<details open><summary>Sequence</summary>{}</details>", svg(connection));
}
