//! `lab run tcp-handshake`: a real connection between two private hosts, watched and explained.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;

use super::{print, progress, stage};
use crate::lab::{Lab, scenarios, topology};
use crate::os::capture::Tap;
use crate::tcp::{ConnectionReport, Keep, Limits, Reading, lesson};
use crate::view::{self, Paint, Style};

/// Its name among the exercises.
pub(super) const NAME: &str = "tcp-handshake";
/// What it is about, in a line.
pub(super) const SUMMARY: &str = "watch a TCP connection open, talk and close, each packet explained";

/// Longer than a packet needs between two namespaces.
const QUIET: Duration = Duration::from_millis(300);

/// Runs inside the namespaces.
pub(super) fn inside(style: Style, json: bool) -> anyhow::Result<u8> {
    if let Some(code) = stage::settle() {
        return Ok(code);
    }
    progress("building the lab …");
    let topology = topology::lan();
    let (services, from, to, target) = scenarios::healthy(&topology);
    let lab = Lab::inside(&topology, &stage::program())?;
    services.iter().try_for_each(|service| lab.start_service(service))?;
    progress("");
    let mut tap = lab.in_host(from, || Tap::open(None))??;
    let server: SocketAddr = ([192, 168, 1, 3], 8080).into();
    lab.in_host(from, || ask(server))??;

    let limits = Limits { keep: Keep { steps: 1000, data: 256, octets: 1 << 20 }, ..Limits::default() };
    let mut reading = Reading::new(limits, 0);
    loop {
        let mut heard = false;
        while tap.next(&mut |packet| {
            reading.packet(packet);
        }) {
            heard = true;
        }
        if !heard {
            tap.wait(None, QUIET);
            let mut more = false;
            while tap.next(&mut |packet| {
                reading.packet(packet);
            }) {
                more = true;
            }
            if !more {
                break;
            }
        }
    }
    let all = reading.table.finish();
    let Some(connection) = all.iter().find(|connection| connection.is_opened()) else {
        anyhow::bail!("the lab's own connection to {target} was not seen");
    };
    let report = ConnectionReport::new(connection);
    let lessons = lesson::lessons(connection, &report);
    if json {
        print(&format!("{:#}\n", json!({ "exercise": NAME, "connection": report, "lessons": lessons })))?;
    } else {
        let mut text = Vec::new();
        writeln!(
            text,
            "{}\n{from} (192.168.1.2) asks {to} (192.168.1.3) for {target}; this is what passed at {from}.\n",
            style.paint(Paint::Bold, "A TCP connection, packet by packet")
        )?;
        view::tcp::ladder(&mut text, connection, style)?;
        writeln!(text, "{}", report.verdict)?;
        view::tcp::explain(&mut text, &lessons, style)?;
        print(&String::from_utf8_lossy(&text))?;
    }
    drop(lab);
    Ok(0)
}

/// Whether an HTTP answer has come to the end that it announces.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_none_or(|length| body.len() >= length)
}

/// One request, and the answer to its end.
fn ask(server: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /data HTTP/1.1\r\nHost: api.lab\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !is_whole(&answer) {
        match stream.read(&mut piece)? {
            0 => break,
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    // The client closes first, and learns that the server has too.
    stream.shutdown(Shutdown::Write)?;
    while stream.read(&mut piece)? > 0 {}
    Ok(())
}
