//! Do proxy variables send the request elsewhere?

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Status, Where};
use super::{Finding, Round};
use crate::probe::exchange::{ExchangeReport, HttpEnd, Outcome};

const ID: &str = "proxy";

pub(super) fn check(round: &mut Round<'_>) {
    let known = round.known;
    let Some(by) = known.trial().and_then(|trial| trial.by_proxy.as_ref()) else { return };
    let (Some(report), Some(direct)) = (&by.report, known.exchange()) else { return };
    let (variable, value) = (&by.variable, &by.value);
    let target = &known.case.target;
    if report.served() {
        let how = if direct.served() { "as it does directly" } else { "which it does not directly" };
        let says = format!("by way of {variable}={value} the request is served, {how}");
        round.note(Status::Info, Layer::Application, ID, says);
        return;
    }
    let what = ended(report);
    if !direct.served() {
        let says = format!("programs that heed {variable}={value} ask that proxy: {what}");
        round.note(Status::Warn, Layer::Application, ID, says);
        return;
    }
    let finding = Finding::new(
        Code::AppProxyEnv,
        Where::Client,
        format!("{variable}={value}"),
        format!(
            "Variable {variable} sends requests for {} to the proxy {value}, which does not serve them: {what}.",
            target.host
        ),
    )
    .seen(what, format!("the request by way of {value}"))
    .seen("the same request without the proxy is served", "the request sent directly")
    .fix(
        "lets programs that are started from this shell go there directly",
        format!("export no_proxy=\"${{no_proxy:+$no_proxy,}}{}\"", target.host),
        "unset no_proxy, or take the host out of it again",
    );
    round.fail(ID, finding);
}

/// How it ended, in a few words.
fn ended(report: &ExchangeReport) -> String {
    match (&report.connect, &report.http) {
        (Outcome::Timeout, _) => "the proxy does not answer".to_owned(),
        (Outcome::Error { errno }, _) => format!("connecting to the proxy gives {errno}"),
        (Outcome::Done, Some(http)) => match (http.status, &http.end) {
            (Some(status), _) => format!("the proxy answers {status}"),
            (None, HttpEnd::Timeout) => "the proxy takes the request and answers nothing".to_owned(),
            (None, HttpEnd::Error { errno }) => format!("the proxy's connection ends with {errno}"),
            (None, _) if http.not_http.is_some() => "what answers is no HTTP proxy".to_owned(),
            (None, _) => "the proxy closes the connection without an answer".to_owned(),
        },
        (Outcome::Done, None) => "nothing was asked of it".to_owned(),
    }
}
