//! `lab run trace`: what a trace shows of a path, and what it only seems to show.

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{print, progress, stage};
use crate::lab::topology::{self, Topology};
use crate::lab::{Lab, rules::Firewall};
use crate::view::lab as view;
use crate::view::{Paint, Style};

/// The exercise's name.
pub(super) const NAME: &str = "trace";
/// What it is about, in a line.
pub(super) const SUMMARY: &str = "how a trace works, what a * means, and how to see every path, limits and MTU";

/// A router's rules that keep its errors to itself.
const NO_ERRORS: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                         -A OUTPUT -p icmp --icmp-type time-exceeded -j DROP\nCOMMIT\n";

/// One question to the path.
struct Lesson {
    title: &'static str,
    /// What is done to the lab before, in words.
    before: Option<&'static str>,
    args: &'static [&'static str],
    /// What to see in it.
    says: &'static str,
}

const LESSONS: [Lesson; 5] = [
    Lesson {
        title: "What does a trace send, and who answers?",
        before: None,
        args: &["--explain", "-q", "1", "server"],
        says: "Each probe dies one router further on, and the router that throws it away says so. That is all a trace is.",
    },
    Lesson {
        title: "Is that the only way?",
        before: None,
        args: &["--paths", "server"],
        says: "r1 has two equal ways and chooses by flow. A plain trace keeps to one flow, so it never mixes them up.",
    },
    Lesson {
        title: "A hop that says nothing",
        before: Some("r4# iptables -A OUTPUT -p icmp --icmp-type time-exceeded -j DROP"),
        args: &["server"],
        says: "r4 shows a *, and yet every packet passes it: the hop behind it answers. A * is no fault by itself.",
    },
    Lesson {
        title: "A hop that seems to lose packets",
        before: Some("r4# iptables -D OUTPUT -p icmp --icmp-type time-exceeded -j DROP"),
        args: &["-q", "12", "server"],
        says: "Routers answer only so often: six at once, then one a second, as Linux does by default. Other tools show \
               that as loss; nothing was lost.",
    },
    Lesson {
        title: "A link that is too small",
        before: Some("r4# ip link set eth0 mtu 1400; server# ip link set eth0 mtu 1400"),
        args: &["--mtu", "server"],
        says: "r4 says that its next link takes 1400 octets. Were it to keep silent, large packets would vanish there \
               without a word, and connections stall.",
    },
];

/// What the lessons before asked has used up what routers may answer at once: so long, and it is back.
const REFILL: Duration = Duration::from_millis(6500);

fn lab_of() -> anyhow::Result<Topology> {
    topology::named("diamond").context("the lab knows no diamond")
}

/// Runs inside the namespaces.
pub(super) fn inside(style: Style, json: bool) -> anyhow::Result<u8> {
    if let Some(code) = stage::settle() {
        return Ok(code);
    }
    progress("building the lab …");
    let lab = Lab::inside(&lab_of()?, &stage::program())?;
    progress("");
    let mut documents = Vec::new();
    let mut good = true;
    for (number, lesson) in (1..).zip(&LESSONS) {
        prepare(&lab, number)?;
        let shown = format!("client# reachwhy trace {}", lesson.args.join(" "));
        if !json {
            print(&view::step(number, lesson.title, None, style))?;
            if let Some(before) = lesson.before {
                print(&format!("{}\n", style.paint(Paint::Command, before)))?;
            }
            print(&format!("{}\n", style.paint(Paint::Command, &shown)))?;
        }
        let (code, text) = ask(&lab, lesson, style, json)?;
        good &= code == 0;
        if json {
            let document: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
            documents
                .push(json!({ "lesson": lesson.title, "before": lesson.before, "command": shown, "result": document }));
        } else {
            print(&text)?;
            print(&format!("\n{}\n", style.paint(Paint::Good, lesson.says)))?;
        }
    }
    if json {
        print(&format!("{:#}\n", json!({ "scenario": NAME, "lessons": documents })))?;
    }
    drop(lab);
    Ok(u8::from(!good))
}

/// What the lab is changed to before a lesson.
fn prepare(lab: &Lab, number: u32) -> anyhow::Result<()> {
    match number {
        3 => {
            lab.set_firewall("r4", Firewall::v4(NO_ERRORS))?;
            std::thread::sleep(REFILL);
        }
        4 => {
            lab.set_firewall(
                "r4",
                Firewall::v4(&NO_ERRORS.replace("-A OUTPUT -p icmp --icmp-type time-exceeded -j DROP\n", "")),
            )?;
            std::thread::sleep(REFILL);
        }
        5 => {
            for host in ["r4", "server"] {
                lab.links(host, |links| links.set_mtu("eth0", 1400))?;
            }
            std::thread::sleep(REFILL);
        }
        _ => {}
    }
    Ok(())
}

fn ask(lab: &Lab, lesson: &Lesson, style: Style, json: bool) -> anyhow::Result<(i32, String)> {
    let mut command = lab.program();
    command.arg("trace").args(lesson.args).args(["--color", if style.color { "always" } else { "never" }]);
    if json {
        command.arg("--json");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut process = lab.spawn("client", command)?;
    let child = process.child();
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut text).context("cannot read what the trace says")?;
    }
    let status = child.wait().context("cannot wait for the trace")?;
    Ok((status.code().unwrap_or(3), text))
}
