//! How the TLS handshake ended.

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Where};
use super::{Finding, Round};
use crate::probe::exchange::TlsFailureKind as Kind;

const ID: &str = "tls";

pub(super) fn check(round: &mut Round<'_>) {
    let known = round.known;
    let Some(report) = known.exchange().and_then(|exchange| exchange.tls.as_ref()) else { return };
    let host = &known.case.target.host;
    let port = known.port();
    let Some(failure) = &report.failure else {
        let version = report.version.as_deref().unwrap_or("TLS").replace('_', ".").replace("TLSv", "TLS ");
        round.pass(Layer::Tls, ID, format!("{version}, the certificate is valid for {host}")).ms = Some(report.ms);
        return;
    };
    let (code, sentence): (Code, String) = match failure.kind {
        Kind::Expired => (Code::TlsExpired, format!("The certificate of {host}:{port} has expired.")),
        Kind::NotYetValid => (
            Code::TlsNotYetValid,
            format!("The certificate of {host}:{port} is not valid yet, or the client's clock is behind."),
        ),
        Kind::WrongName => {
            (Code::TlsNameMismatch, format!("The certificate of {host}:{port} is for other names than {host}."))
        }
        Kind::Untrusted => {
            (Code::TlsUntrusted, format!("The certificate of {host}:{port} is signed by nobody the client trusts."))
        }
        Kind::Version => {
            (Code::TlsVersion, format!("Port {port} of {host} and the client share no TLS version or cipher."))
        }
        Kind::NotTls => (Code::TlsNotTls, format!("Port {port} of {host} does not speak TLS.")),
        Kind::Closed | Kind::Timeout | Kind::Other => {
            (Code::TlsHandshakeFailed, format!("The TLS handshake with {host}:{port} fails."))
        }
    };
    let fix = match failure.kind {
        Kind::Expired => "renew the certificate on the server",
        Kind::NotYetValid => "compare both clocks (`date -u`); correct the one that is wrong, or the certificate",
        Kind::WrongName => "call the service by a name of its certificate, or issue one for this name",
        Kind::Untrusted => "install the authority's certificate on the client, or have the server send the whole chain",
        Kind::Version => "allow TLS 1.2 or 1.3 on the server",
        Kind::NotTls => "use http:// for this port, or the service's TLS port",
        Kind::Closed | Kind::Timeout | Kind::Other => "look at the server's log for the handshake",
    };
    let unclear = matches!(failure.kind, Kind::Closed | Kind::Timeout | Kind::Other);
    let mut finding = Finding::new(code, Where::Server, format!("TLS on {host}:{port}"), sentence)
        .seen(failure.detail.clone(), "TLS handshake from the client")
        .fix(fix, String::new(), String::new());
    if unclear {
        finding = finding.but(
            Confidence::Class,
            &[Code::TlsVersion],
            Some(format!("openssl s_client -connect {host}:{port}")),
        );
    }
    round.fail(ID, finding);
    if let Some(check) = round.checks.last_mut() {
        check.ms = Some(report.ms);
    }
}
