//! One conversation with a service, as an application would have it: connect, TLS, request, answer.
//!
//! Only the types: what to do, and what was seen. The system edge runs it, the doctor judges it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::host::Transport;

/// What to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangePlan {
    /// Whom to reach.
    pub to: SocketAddr,
    /// TCP or UDP.
    pub transport: Transport,
    /// The name the certificate must be for; `None` for no TLS.
    pub tls_name: Option<String>,
    /// The request to send once the connection stands; `None` to stop there.
    pub http: Option<HttpRequest>,
    /// How long the handshake may take, milliseconds.
    pub connect_ms: u64,
    /// How long the first octet of the answer may take, and any gap in it, milliseconds.
    pub answer_ms: u64,
}

/// A GET request (RFC 9112).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// Path and query.
    pub path: String,
    /// The `Host` field.
    pub host: String,
    /// Asks a proxy for a tunnel to `host` (RFC 9110 §9.3.6) and no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tunnel: bool,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExchangeReport {
    /// Our end, once the kernel chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// How the handshake (TCP) or the sending (UDP) ended.
    pub connect: Outcome,
    /// How long that took, milliseconds.
    pub connect_ms: f64,
    /// The TLS handshake, where it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsReport>,
    /// The request and its answer, where it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpReport>,
    /// The datagram's answer, octets; UDP only, `None` when none came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagram: Option<usize>,
}

impl ExchangeReport {
    /// Whether the peer gave what was asked for: a connection, a TLS session that is trusted, an answer that is no error.
    pub fn served(&self) -> bool {
        self.connect == Outcome::Done
            && self.tls.as_ref().is_none_or(|tls| tls.failure.is_none())
            && self.http.as_ref().is_none_or(|http| {
                http.status.is_some_and(|status| status < 400)
                    && matches!(http.end, HttpEnd::Complete | HttpEnd::Enough)
            })
    }
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub enum Outcome {
    /// It worked.
    Done,
    /// The kernel said no, with this errno by name: `ECONNREFUSED`, `EHOSTUNREACH`, ….
    Error {
        /// The errno's name.
        errno: String,
    },
    /// Nothing was heard in time.
    Timeout,
}

/// The TLS handshake.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TlsReport {
    /// How long it took, milliseconds.
    pub ms: f64,
    /// `TLSv1_3`, once agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why it failed; `None` when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<TlsFailure>,
}

/// Why a TLS handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFailure {
    /// The kind.
    pub kind: TlsFailureKind,
    /// In the library's words, with dates and names where it gives them.
    pub detail: String,
}

/// The kinds that lead to different causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsFailureKind {
    /// The certificate's time is over.
    Expired,
    /// The certificate's time has not come.
    NotYetValid,
    /// It is for other names.
    WrongName,
    /// Nobody we trust signed it.
    Untrusted,
    /// No common version or cipher.
    Version,
    /// What came back was not TLS.
    NotTls,
    /// The peer closed or reset.
    Closed,
    /// Nothing came back in time.
    Timeout,
    /// Anything else.
    Other,
}

/// The request and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpReport {
    /// From sending the request to the first octet of the answer, milliseconds; `None` when none came.
    pub first_octet_ms: Option<f64>,
    /// The whole conversation after the connection stood, milliseconds.
    pub ms: f64,
    /// Octets received.
    pub received: u64,
    /// The status code, once a complete head had come (RFC 9110 §15).
    pub status: Option<u16>,
    /// `Server`, `Via`, `Location`, `Content-Type` of the head, in lower case.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Octets of body that `Content-Length` promised.
    pub body_expected: Option<u64>,
    /// Octets of body received.
    pub body_received: u64,
    /// How it ended.
    pub end: HttpEnd,
    /// The first octets, made printable, where they were no HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_http: Option<String>,
    /// What breaks the answer's framing (RFC 9112 §6), where something does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misframed: Option<String>,
    /// The first octets of the body as text, where the status is 400 or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "ended")]
pub enum HttpEnd {
    /// Complete, by its own framing, or by the close where it has none.
    Complete,
    /// The peer closed before it was complete (or before it began).
    Closed,
    /// The peer reset, or another error came: the errno by name.
    Error {
        /// The errno's name.
        errno: String,
    },
    /// Nothing more came in time.
    Timeout,
    /// We had read enough and stopped.
    Enough,
}

/// What to ask an unknown UDP service, so that it has a reason to answer: a DNS question on 53, a
/// client's greeting on 123, else an empty datagram, which at least draws "port unreachable".
pub fn udp_question(port: u16) -> &'static [u8] {
    match port {
        // RFC 1035 §4.1: id 0x7277, RD, one question: the root's NS records.
        53 => b"\x72\x77\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01",
        // RFC 5905 §7.3: version 4, mode 3 (client), all else zero.
        123 => b"\x23\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        _ => b"",
    }
}
