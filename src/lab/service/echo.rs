//! Sends back what it gets, by TCP and UDP.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::thread;

use super::{ServiceError, listen, ready, serve};

/// How the echo service is started.
#[derive(Debug, Clone, clap::Args)]
pub struct EchoOptions {
    /// Address to listen on, TCP and UDP
    #[arg(long, default_value = "0.0.0.0:7")]
    pub listen: SocketAddr,
    /// Take UDP but never answer
    #[arg(long)]
    pub mute: bool,
    /// The process's name
    #[arg(long)]
    pub name: Option<String>,
}

/// Runs the service; returns only when it cannot begin.
pub fn run(options: &EchoOptions) -> Result<(), ServiceError> {
    let address = options.listen;
    let tcp = listen(address)?;
    let udp = UdpSocket::bind(address).map_err(|source| ServiceError::Listen { address, source })?;
    ready(options.name.as_deref())?;
    let mute = options.mute;
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            // An ICMP error of an earlier answer shows as an error here; the next datagram is not its fault.
            let Ok((length, from)) = udp.recv_from(&mut buffer) else { continue };
            if !mute {
                let _ = udp.send_to(&buffer[..length], from);
            }
        }
    });
    serve(&tcp, |mut stream| {
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            stream.write_all(&buffer[..read])?;
        }
    });
    Ok(())
}
