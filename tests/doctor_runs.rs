//! The doctor's runs as a person has them: a fix on trial, a watch, a host reached by a real sshd with
//! and without reachwhy, a host that serves, a fleet. All in namespaces that have no way out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::process::Command;

/// Two hosts on a link, a service on the second one's port 8080; `$D` is the doctor's question from the first.
const PAIR: &str = r#"
exec 2>&1
mount -t tmpfs none /run
mkdir -p /run/netns
ip netns add a; ip netns add b
ip link add va netns a type veth peer name vb netns b
ip -n a addr add 192.168.1.2/24 dev va; ip -n b addr add 192.168.1.3/24 dev vb
for pair in a:va b:vb; do ip -n ${pair%:*} link set lo up; ip -n ${pair%:*} link set ${pair#*:} up; done
A="ip netns exec a"; B="ip netns exec b"
$B "$REACHWHY" lab service http --listen 0.0.0.0:8080 >/dev/null 2>&1 & SERVICE=$!
for i in $(seq 100); do [ -n "$($B ss -Hltn sport = 8080)" ] && break; sleep 0.05; done
D="$REACHWHY doctor 192.168.1.3:8080 --timeout 0.4"
BOTH="--from netns:a --to netns:b"
wait_for() { for i in $(seq 200); do eval "$1" && return; sleep 0.05; done; echo "never: $1"; }
"#;

/// Runs a script in namespaces of its own; `None` where that is not possible here.
fn run(script: &str, needs: &[&str]) -> Option<String> {
    let can = Command::new("unshare").args(["-n", "-m", "ip", "netns", "list"]).output();
    let there = |tool: &&str| {
        let known = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
        known.is_ok_and(|out| out.status.success()) || std::path::Path::new("/usr/sbin").join(tool).exists()
    };
    let root = nix::unistd::geteuid().is_root();
    if !root || !can.is_ok_and(|out| out.status.success()) || !needs.iter().all(there) {
        let why = format!("this needs root, unshare, ip and {}", needs.join(", "));
        assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "{why}");
        println!("SKIPPED: {why}");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = Command::new("unshare")
        .args(["-n", "-m", "--propagation", "private", "sh", "-c", script])
        .env("REACHWHY", env!("CARGO_BIN_EXE_reachwhy"))
        .env("W", folder.path())
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr);
    println!("{text}\n{errors}");
    assert!(out.status.success(), "{text}\n{errors}");
    assert!(!text.contains("never: "), "{text}\n{errors}");
    Some(text)
}

/// What stands between `== NAME` and the next such line.
fn part<'a>(text: &'a str, name: &str) -> &'a str {
    let found = text.split("== ").find(|part| part.lines().next() == Some(name));
    found.unwrap_or_else(|| panic!("no part {name} in\n{text}"))
}

/// One line, whatever the width it was wrapped to.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

const FIX: &str = r#"
rules() { $B iptables-save | grep -c -- '-j ACCEPT'; }
$B iptables -A INPUT -p tcp --dport 8080 -j DROP
$B iptables -A OUTPUT -p tcp --sport 8080 -j DROP
echo "== both stopped"; $D $BOTH --fix-check; echo "exit $?"; echo "rules $(rules)"
$D $BOTH --save $W/case.json >/dev/null
echo "== replayed check"; $REACHWHY doctor --replay $W/case.json --fix-check --json; echo "exit $?"
for signal in TERM KILL; do
    echo "== $signal"
    $REACHWHY doctor 192.168.1.3:8080 --timeout 2.5 $BOTH --verify-fix > $W/said 2>&1 & P=$!
    wait_for '[ $(rules) = 1 ]'
    kill -$signal $P; wait $P; echo "exit $?"
    wait_for '[ $(rules) = 0 ]'
    cat $W/said
done
echo "== next"; $D $BOTH --verify-fix; echo "exit $?"; echo "rules $(rules)"
echo "== check"; $D $BOTH --fix-check
echo "== healed"; $D $BOTH --verify-fix --json; echo "exit $?"; echo "rules $(rules)"
echo "== nothing"; $D $BOTH --verify-fix; echo "exit $?"
echo "== alone"; $B iptables -I INPUT -p tcp --dport 8080 -j DROP; $D --from netns:a --verify-fix; echo "exit $?"
mkdir $W/bin; printf '#!/bin/sh\nexit 0\n' > $W/bin/iptables; chmod +x $W/bin/iptables
echo "== in vain"; PATH=$W/bin:$PATH $D $BOTH --verify-fix; echo "exit $?"
printf '#!/bin/sh\necho no such luck >&2; exit 4\n' > $W/bin/iptables
echo "== failing"; PATH=$W/bin:$PATH $D $BOTH --verify-fix; echo "exit $?"
$B iptables -D INPUT 1
echo "== breaks"; $D $BOTH --watch --interval 0.2 > $W/watch & P=$!
wait_for 'grep -q first $W/watch'; $B iptables -I INPUT -p tcp --dport 8080 -j DROP
wait $P; echo "exit $?"; cat $W/watch
echo "== heals"; $D $BOTH --watch --interval 0.2 --json > $W/watch & P=$!
wait_for '[ -s $W/watch ]'; $B iptables -R INPUT 1 -p tcp --dport 8080 -j REJECT
wait_for 'grep -q changes $W/watch'; $B iptables -D INPUT 1
wait $P; echo "exit $?"; cut -c1-120 $W/watch
echo "== count"; $D $BOTH --watch --interval 0.1 --count 2; echo "exit $?"
echo "== tables"; $A nft list tables; $B nft list tables
kill $SERVICE
"#;

#[test]
fn a_fix_is_put_on_trial_and_a_watch_tells_what_changes() {
    let Some(text) = run(&format!("{PAIR}{FIX}"), &["iptables", "nft", "ss"]) else { return };
    let has = |name: &str, what: &str| {
        let part = flat(part(&text, name));
        assert!(part.contains(what), "{name}: `{what}` is missing in\n{part}");
    };
    has("check", "every packet of the connection passes this host's rules then");
    has("check", "output: tcp any:8080 > any");
    has("both stopped", "it does not suffice");
    has("both stopped", "rules 0");
    has("replayed check", "\"newly_passes\": [");
    has("TERM", "exit 1");
    has("TERM", "the fix was taken back. The host is as it was.");
    has("KILL", "exit 137");
    has("next", "this fault is gone and the next one shows");
    has("next", "exit 1 rules 1");
    has("healed", "\"outcome\": \"healed\"");
    has("healed", "\"verified\": true");
    has("healed", "exit 0 rules 2");
    has("nothing", "Nothing was changed: it works. exit 0");
    has("alone", "Nothing was changed");
    has(
        "in vain",
        "The fix does not help: the fault is the same; the fix was taken back. The host is as it was. exit 1",
    );
    has("failing", "no such luck. The host is as it was. exit 1");
    has("breaks", "✓ at first: tcp://192.168.1.3:8080 answers");
    has("breaks", "✗ breaks: Rule 1 of chain INPUT");
    has("breaks", "exit 1");
    let events: Vec<&str> =
        part(&text, "heals").lines().filter_map(|line| line.strip_prefix("{\"event\":\"")?.split('"').next()).collect();
    assert_eq!(events, ["start", "changes", "heals", "end"]);
    has("heals", "exit 0");
    has("count", "2 looks exit 0");
    assert!(!part(&text, "tables").contains("reachwhy"), "{text}");
}

const SSH: &str = r#"
mkdir -p /run/sshd $W/bin $W/far
for key in host key; do ssh-keygen -q -t ed25519 -N '' -f $W/$key; done
cat > $W/sshd_config <<END
Port 2222
HostKey $W/host
PidFile none
AuthorizedKeysFile $W/key.pub
StrictModes no
UsePAM no
PermitRootLogin yes
SetEnv TMPDIR=$W/far
END
cat > $W/config <<END
Host *
  IdentityFile $W/key
  IdentitiesOnly yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
END
printf '#!/bin/sh\nexec /usr/bin/ssh -F %s/config "$@"\n' $W > $W/bin/ssh; chmod +x $W/bin/ssh
PATH=$W/bin:$PATH
$B /usr/sbin/sshd -D -f $W/sshd_config -E $W/log & SSHD=$!
wait_for '[ -n "$($B ss -Hltn sport = 2222)" ]'
left() { ls -d $W/far/reachwhy.* 2>/dev/null; }
S="$A $D --to ssh:root@192.168.1.3:2222"
echo "== healthy"; $S; echo "exit $?"
$B iptables -A INPUT -p tcp --dport 8080 -j DROP
echo "== plain"; $S; echo "exit $?"
echo "== pushed"; $S --push; echo "exit $?"; wait_for '[ -z "$(left)" ]'
echo "== closed"; $A $REACHWHY doctor 192.168.1.3:8081 --timeout 0.4 --to ssh:root@192.168.1.3:2222
F="$A $REACHWHY doctor --timeout 0.9 --from ssh:root@192.168.1.3:2222"
echo "== from"; $F 192.168.1.2:8080 --to local; echo "exit $?"
echo "== from, works"; $F 192.168.1.3:2222; echo "exit $?"; $F 192.168.1.2; echo "exit $?"
echo "== from, filtered"; $B iptables -A OUTPUT -p tcp --dport 8080 -j DROP; $F 192.168.1.2:8080; echo "exit $?"
$B iptables -D OUTPUT 1
echo "== from, http"; $F http://192.168.1.2:8080; echo "exit $?"
echo "== plain fix"; $S --verify-fix; echo "exit $?"
# Killed while the copy is on its way: the far side cleans up by itself.
$S --push > /dev/null 2>&1 & P=$!
wait_for '[ -n "$(left)" ]'; kill -9 $P; wait $P
wait_for '[ -z "$(left)" ]'
echo "== pushed fix"; $S --push --verify-fix; echo "exit $?"; wait_for '[ -z "$(left)" ]'
echo "== fleet"; $A $REACHWHY doctor matrix local=192.168.1.2 ssh:root@192.168.1.3:2222 --push; echo "exit $?"; wait_for '[ -z "$(left)" ]'
echo "== nobody"; $A $REACHWHY doctor 192.168.1.3:8080 --to ssh:root@192.168.1.3:2223; echo "exit $?"
kill $SSHD $SERVICE
"#;

#[test]
fn a_host_behind_ssh_is_looked_at_with_and_without_reachwhy() {
    let Some(text) = run(&format!("{PAIR}{SSH}"), &["iptables", "sshd", "ssh", "ssh-keygen", "ss"]) else { return };
    let has = |name: &str, what: &str| {
        let part = flat(part(&text, name));
        assert!(part.contains(what), "{name}: `{what}` is missing in\n{part}");
    };
    has("healthy", "answers as it should");
    has("healthy", "--push copies reachwhy there for the time of the look");
    has("plain", "fw.server_input_drop · on the server · likely");
    has("plain", "exit 1");
    has("pushed", "fw.server_input_drop · on the server · proven");
    has("pushed", "for the time of the look; removed again exit 1");
    has("closed", "tcp.not_listening · on the server · likely");
    has("from", "tcp.not_listening · on the server");
    has("from", "exit 1");
    assert_eq!(part(&text, "from, works").matches("exit 0").count(), 2, "{text}");
    has("from, filtered", "fw.client_output_drop · on the client · likely");
    has("from, http", "--push copies it for the time of the look");
    has("from, http", "exit 3");
    has("plain fix", "this needs reachwhy there");
    has("pushed fix", "the fix was kept. exit 0");
    has("fleet", "exit 0");
    has("nobody", "exit 3");
}

const SERVE: &str = r#"
$B iptables -A INPUT -p tcp --dport 8080 -j DROP
serve() {
    : > $W/served; $B $REACHWHY doctor --serve --port 4000 --for 20 "$@" > $W/served 2>&1 & S=$!
    wait_for 'grep -q Listening $W/served'; TO=$(grep -o 'serve:192[^ ]*' $W/served)
}
over() { wait $S; echo "served $?"; cat $W/served; }
serve; echo "== served"; $A $D --to $TO; echo "exit $?"; over
echo "== used"; $A $D --to $TO; echo "exit $?"
serve; echo "== wrong"; $A $D --to ${TO%????????}00000000; echo "exit $?"
echo "== stranger"; $A $D --to $(echo $TO | sed 's/#......../#00000000/'); echo "exit $?"
$A sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do head -c 4000 /dev/urandom | timeout 1 nc -w 1 192.168.1.3 4000 >/dev/null & done; wait'
echo "== after strangers"; $A $D --to $TO --verify-fix; echo "exit $?"; over
serve 192.168.1.3:8080; echo "== agreed"; $A $REACHWHY doctor 192.168.1.3:22 --timeout 0.4 --to $TO; echo "exit $?"; over
echo "== time"; $B $REACHWHY doctor --serve --for 0.3 --json; echo "exit $?"
echo "== from"; $A $D --from $TO; echo "exit $?"
echo "== tables"; $B nft list tables
kill $SERVICE
"#;

#[test]
fn a_doctor_serves_one_client_and_no_stranger() {
    let Some(text) = run(&format!("{PAIR}{SERVE}"), &["iptables", "nft", "ss"]) else { return };
    let has = |name: &str, what: &str| {
        let part = flat(part(&text, name));
        assert!(part.contains(what), "{name}: `{what}` is missing in\n{part}");
    };
    has("served", "fw.server_input_drop · on the server · proven");
    has("served", "exit 1 served 0");
    has("served", "The token is void.");
    has("used", "exit 3");
    has("wrong", "it hangs up: the token is wrong");
    has("stranger", "it is not the doctor that made this token");
    has("after strangers", "fw.server_input_drop · on the server · proven");
    has("after strangers", "a doctor that serves changes nothing");
    has("after strangers", "served 0");
    has("agreed", "another target was agreed on");
    has("time", "the time is up and nobody came with the token");
    has("time", "exit 3");
    has("from", "exit 2");
    assert!(!part(&text, "tables").contains("reachwhy"), "{text}");
    // The token is nowhere but where it was printed.
    let token = text.split('#').nth(1).unwrap().split_whitespace().next().unwrap();
    assert_eq!(token.len(), 48);
    assert_eq!(text.matches(token).count(), 1, "{text}");
}

const FLEET: &str = r#"
exec 2>&1
mount -t tmpfs none /run
mkdir -p /run/netns
ip link add br0 type bridge; ip link set br0 up
PIDS=
for n in 1 2 3; do
    ip netns add w$n; ip link add v$n type veth peer name eth0 netns w$n
    ip link set v$n master br0 up; ip -n w$n addr add 10.0.0.$n/24 dev eth0
    ip -n w$n link set lo up; ip -n w$n link set eth0 up
    ip netns exec w$n "$REACHWHY" lab service http --listen 0.0.0.0:8080 >/dev/null 2>&1 & PIDS="$PIDS $!"
done
for n in 1 2 3; do while [ -z "$(ip netns exec w$n ss -Hltn sport = 8080)" ]; do sleep 0.05; done; done
M="$REACHWHY doctor matrix --timeout 0.4"
echo "== healthy"; $M netns:w1 netns:w2 netns:w3 --port 8080; echo "exit $?"
ip netns exec w2 iptables -A OUTPUT -d 10.0.0.3 -j DROP
cat > $W/hosts <<END
[web]
web1 reachwhy_vantage=netns:w1
web2 reachwhy_vantage=netns:w2   # behind a rule
[db]
db1 reachwhy_vantage=netns:w3 reachwhy_address=10.0.0.3
END
echo "== faults"; $M -i $W/hosts --target 'http://{}:8080/'; echo "exit $?"
echo "== json"; $M -i $W/hosts --port 8080 --json; echo "exit $?"
echo "== gone"; $M netns:w1 netns:none; echo "exit $?"
echo "== usage"; $M netns:w1; echo "exit $?"; $M a b --target x; echo "exit $?"; $M 'a b' c; echo "exit $?"
printf 'all:\n  hosts: [a\n' > $W/bad.yml; $M -i $W/bad.yml 2>&1; echo "exit $?"
kill $PIDS
"#;

#[test]
fn a_fleet_is_tried_pair_by_pair_and_its_causes_are_grouped() {
    let Some(text) = run(FLEET, &["iptables", "ss"]) else { return };
    let has = |name: &str, what: &str| {
        let part = flat(part(&text, name));
        assert!(part.contains(what), "{name}: `{what}` is missing in\n{part}");
    };
    has("healthy", "All 6 pairs work (tcp://{}:8080).");
    has("healthy", "exit 0");
    has("faults", "2 of 6 pairs do not work: 1 root cause");
    has("faults", "2 web2 ✓ · A");
    has("faults", "3 db1 ✓ A ·");
    has("faults", "on web2 · proven · 2 pairs");
    has("faults", "exit 1");
    let json: serde_json::Value = {
        let part = part(&text, "json");
        serde_json::from_str(&part[part.find('{').unwrap()..=part.rfind('}').unwrap()]).unwrap()
    };
    assert_eq!((json["ok"].as_u64(), json["faults"].as_u64()), (Some(4), Some(2)));
    assert_eq!(json["causes"][0]["host"], "web2");
    assert_eq!(json["causes"][0]["fix"].as_array().unwrap().len(), 2, "one for each direction");
    assert_eq!(json["causes"][0]["pairs"].as_array().unwrap().len(), 2);
    has("gone", "exit 3");
    assert_eq!(part(&text, "usage").matches("exit 2").count(), 4, "{text}");
    has("usage", "bad.yml:3:1");
}
