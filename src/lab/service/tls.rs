//! HTTP over TLS, with a certificate that is right, or wrong in one chosen way.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;

use super::http::{Answer, converse};
use super::{ServiceError, listen, ready, serve};

/// What is wrong with the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Certificate {
    /// Nothing.
    Valid,
    /// It ended in the past.
    Expired,
    /// It begins in the future.
    NotYetValid,
    /// It is for another name.
    WrongName,
    /// It is signed by no authority but itself.
    SelfSigned,
}

/// How the TLS service is started.
#[derive(Debug, Clone, clap::Args)]
pub struct TlsOptions {
    /// Address to listen on
    #[arg(long, default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// What is wrong with the certificate
    #[arg(long, value_enum, default_value = "valid")]
    pub certificate: Certificate,
    /// Names and addresses that the certificate is for
    #[arg(long = "for", default_value = "localhost")]
    pub names: Vec<String>,
    /// Speak only TLS 1.2
    #[arg(long)]
    pub tls12: bool,
    /// Write the authority's certificate here, in PEM, for clients to trust
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// What /data answers, as the http service has it
    #[arg(long, default_value = "ok")]
    pub answer: Answer,
    /// The process's name
    #[arg(long)]
    pub name: Option<String>,
}

/// A chain with its key, and the authority to trust, in PEM.
struct Identity {
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authority: String,
}

fn identity(what: Certificate, names: &[String]) -> Result<Identity, rcgen::Error> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name.push(DnType::CommonName, "reachwhy lab authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.not_before = date_time_ymd(2020, 1, 1);
    ca.not_after = date_time_ymd(2090, 1, 1);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let names = if what == Certificate::WrongName { vec!["other.example".to_owned()] } else { names.to_vec() };
    let common = names.first().cloned().unwrap_or_default();
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, common);
    (leaf.not_before, leaf.not_after) = match what {
        Certificate::Expired => (date_time_ymd(2021, 1, 1), date_time_ymd(2022, 1, 1)),
        Certificate::NotYetValid => (date_time_ymd(2080, 1, 1), date_time_ymd(2081, 1, 1)),
        _ => (date_time_ymd(2021, 1, 1), date_time_ymd(2080, 1, 1)),
    };
    let key = KeyPair::generate()?;
    let leaf = match what {
        Certificate::SelfSigned => leaf.self_signed(&key)?,
        _ => leaf.signed_by(&key, &ca)?,
    };
    Ok(Identity {
        chain: vec![leaf.der().clone()],
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        authority: ca.pem(),
    })
}

/// Runs the service; returns only when it cannot begin.
pub fn run(options: &TlsOptions) -> Result<(), ServiceError> {
    let failed = |error: &dyn std::fmt::Display| ServiceError::Certificate(error.to_string());
    let identity = identity(options.certificate, &options.names).map_err(|error| failed(&error))?;
    if let Some(path) = &options.ca {
        fs::write(path, &identity.authority)
            .map_err(|source| ServiceError::Io { operation: "write the authority's certificate", source })?;
    }
    let versions: &[&rustls::SupportedProtocolVersion] =
        if options.tls12 { &[&rustls::version::TLS12] } else { rustls::ALL_VERSIONS };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(identity.chain, identity.key))
        .map_err(|error| failed(&error))?;
    let config = Arc::new(config);
    let listener = listen(options.listen)?;
    ready(options.name.as_deref())?;
    let answer = options.answer;
    serve(&listener, move |tcp| {
        let connection = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, tcp);
        converse(&mut stream, answer, |stream| SockRef::from(&stream.sock).set_linger(Some(Duration::ZERO)))?;
        stream.conn.send_close_notify();
        stream.conn.complete_io(&mut stream.sock).map(drop)
    });
    Ok(())
}

/// The names that a service at `address` is called by.
pub fn names(host: &str, address: Option<IpAddr>) -> Vec<String> {
    let mut names = vec![host.to_owned(), format!("{host}.lab")];
    names.extend(address.map(|ip| ip.to_string()));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_certificate_can_be_made() {
        for kind in Certificate::value_variants() {
            let made = identity(*kind, &names("api", "192.168.1.3".parse().ok())).unwrap();
            assert!(made.authority.starts_with("-----BEGIN CERTIFICATE-----"));
            assert_eq!(made.chain.len(), 1);
        }
    }
}
