//! A container and a pod as the far end: what `docker` and `kubectl` print is played by scripts, the
//! namespaces, the service and the fault are real.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Two hosts on a link, inside namespaces of the script's own that have no way out; a process of the
/// second plays the container.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs none /run
mkdir -p /run/netns
ip netns add a; ip netns add b
ip link add va netns a type veth peer name vb netns b
ip -n a addr add 192.168.1.2/24 dev va; ip -n b addr add 192.168.1.3/24 dev vb
for pair in a:va b:vb; do ip -n ${pair%:*} link set lo up; ip -n ${pair%:*} link set ${pair#*:} up; done
ip netns exec b sleep 60 & PID=$!
while [ "$(readlink /proc/$PID/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
export PID PATH="$STUBS:$PATH"
ip netns exec b iptables -A INPUT -p tcp --dport 8080 -j DROP
for vantage in docker:web docker:nope docker:stopped kubectl:prod/api kubectl:bare kubectl:prod/empty; do
    echo "== $vantage"
    "$REACHWHY" doctor 192.168.1.3:8080 --from netns:a --to $vantage --timeout 0.5 2>&1 || echo "exit $?"
done
echo "== pushed"
"$REACHWHY" doctor 192.168.1.3:8080 --from netns:a --to kubectl:bare --push --timeout 0.5 2>&1 || echo "exit $?"
kill $PID
"#;

const DOCKER: &str = r#"#!/bin/sh
case "$6" in
web) echo "$PID" ;;
stopped) echo 0 ;;
*) echo "Error: No such container: $6" >&2; exit 1 ;;
esac
"#;

const KUBECTL: &str = r#"#!/bin/sh
case "$*" in
"exec -i -n prod api -- reachwhy agent") exec nsenter -t "$PID" -n "$REACHWHY" agent ;;
"exec -i bare -- sh -c "*) exec nsenter -t "$PID" -n sh -c "$7" ;;
*" -- reachwhy agent") echo 'error: exec: "reachwhy": executable file not found in $PATH' >&2; exit 126 ;;
*" -- sh -c "*) echo 'error: exec: "sh": executable file not found in $PATH' >&2; exit 126 ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac
"#;

fn stub(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_container_and_a_pod_are_ends_to_look_from() {
    let can = Command::new("unshare").args(["-n", "-m", "ip", "netns", "list"]).output();
    let tools = can.is_ok_and(|out| out.status.success()) && Command::new("iptables").arg("-V").output().is_ok();
    if !nix::unistd::geteuid().is_root() || !tools {
        let why = "making namespaces needs root, unshare, ip and iptables";
        assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "{why}");
        println!("SKIPPED: {why}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    stub(folder.path(), "docker", DOCKER);
    stub(folder.path(), "kubectl", KUBECTL);
    let out = Command::new("unshare")
        .args(["-n", "-m", "--propagation", "private", "sh", "-c", SCRIPT])
        .env("STUBS", folder.path())
        .env("REACHWHY", env!("CARGO_BIN_EXE_reachwhy"))
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let part = |vantage: &str| said.split("== ").find(|part| part.starts_with(vantage)).unwrap_or("").to_owned();
    for vantage in ["docker:web", "kubectl:prod/api"] {
        let part = part(vantage);
        assert!(part.contains("fw.server_input_drop · on the server · proven"), "{vantage}: {said}\n{out:?}");
        assert!(part.contains("exit 1"), "{part}");
    }
    assert!(part("docker:nope").contains("docker says: Error: No such container: nope"), "{said}");
    assert!(part("docker:stopped").contains("container stopped is not running"), "{said}");
    assert!(part("docker:nope").contains("exit 3"), "{said}");
    // A pod with a shell and without reachwhy; one with neither.
    assert!(part("kubectl:bare").contains("fw.server_input_drop · on the server · likely"), "{said}");
    assert!(part("pushed").contains("fw.server_input_drop · on the server · proven"), "{said}");
    assert!(part("pushed").contains("copied reachwhy to "), "{said}");
    assert!(part("kubectl:prod/empty").contains("\"reachwhy\": executable file not found"), "{said}");
    assert!(part("kubectl:prod/empty").contains("exit 3"), "{said}");
}
