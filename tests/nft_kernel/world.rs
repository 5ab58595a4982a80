//! A network namespace of a test's own, and the tools of the machine inside it.

use std::io::Write;
use std::process::{Command, Stdio};

use reachwhy::os::netns::NetNs;

/// Runs `test` in a thread inside a fresh network namespace, loopback up. Where the machine does not
/// allow that, says so loudly and passes, unless `REACHWHY_REQUIRE_KERNEL=1`.
pub(crate) fn inside(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(error) = NetNs::unshare() {
            return skip(&error.to_string());
        }
        loopback_up();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Says that a test could not run here.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "required, but: {why}");
    eprintln!("SKIPPED: {why}");
}

/// Whether a tool is installed; says so when it is not.
pub(crate) fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        skip(&format!("no {tool} here"));
    }
    found
}

/// Runs a tool in this thread's namespace with `input`; its output.
pub(crate) fn run(tool: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{tool}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {errors}\n{input}");
    String::from_utf8(output.stdout).unwrap()
}

fn loopback_up() {
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::{LinkFlags, LinkMessage};
    let mut message = LinkMessage::default();
    message.header.index = 1;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    let mut netlink = reachwhy::os::netlink::Netlink::open(0).unwrap();
    netlink.request("raise lo", RouteNetlinkMessage::SetLink(message), 0).unwrap();
}
