use super::super::trial::TrialOutcome;
use super::*;

const A: MacAddr = MacAddr([0, 0, 0x0c, 0, 0, 0x0a]);
const B: MacAddr = MacAddr([0, 0, 0x0c, 0, 0, 0x0b]);
const R: MacAddr = MacAddr([0, 0, 0x0c, 0, 0, 0xfe]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn said(mac: MacAddr, rounds: u16) -> Responder {
    let replies = rounds.count_ones();
    Responder { mac, ether_src: None, replies, rounds, rtt_ns: Some(50_000), first_at: 1 }
}

fn owns(at: &str, via: MacAddr, reply_from: MacAddr) -> Trial {
    Trial { outcome: TrialOutcome::Owns { reply_from, ttl: 64 }, ..Trial::new(ip(at), via) }
}

fn forwards(at: &str, via: MacAddr) -> Trial {
    let outcome = TrialOutcome::Forwards { by: ip("10.0.0.254"), reply_from: via };
    Trial { outcome, ..Trial::new(ip(at), via) }
}

/// The codes of what is found, with how sure they are.
fn check(
    answers: &[(&str, &[Responder])],
    trials: &[Trial],
    adverts: &[Advert],
    scene: &Scene,
) -> Vec<(Code, Confidence)> {
    let answers = answers.iter().map(|(at, all)| (ip(at), all.to_vec())).collect();
    let evidence = Evidence { answers: &answers, trials, adverts, listened: 3_300_000_000, scene };
    judge(&evidence).into_iter().map(|finding| (finding.code, finding.confidence)).collect()
}

#[test]
fn two_answers_by_their_evidence() {
    use Code::{Duplicate, Flux, Intercepted, Moved, Proxy, TwoAnswers};
    use Confidence::{Likely, Proven};
    let both: &[Responder] = &[said(A, 1), said(B, 1)];
    let silent = [Trial::new(ip("10.0.0.5"), A), Trial::new(ip("10.0.0.5"), B)];
    let scene = Scene { asked: 256, ..Scene::default() };
    let one = |trials: &[Trial]| check(&[("10.0.0.5", both)], trials, &[], &scene);
    let at = "10.0.0.5";
    assert_eq!(one(&[owns(at, A, A), owns(at, B, B)]), [(Duplicate, Proven)]);
    assert_eq!(one(&[owns(at, A, A), owns(at, B, A)]), [(Flux, Proven)]);
    assert_eq!(one(&[owns(at, A, A), forwards(at, B)]), [(Intercepted, Proven)]);
    assert_eq!(one(&[forwards(at, A), forwards(at, B)]), [(Proxy, Proven)]);
    assert_eq!(one(&silent), [(TwoAnswers, Likely)]);
    // One reply alone says who that is, and nothing of the other.
    assert_eq!(one(&[owns(at, A, A), silent[1].clone()]), [(TwoAnswers, Likely)]);
    // The same two for another address, and neither alone for any: interfaces of one host, most likely.
    let pair = [(at, both), ("10.0.0.6", both)];
    assert_eq!(check(&pair, &silent, &[], &scene), [(Flux, Likely)]);
    // One after the other: it moved.
    let moved: &[Responder] = &[said(A, 0b001), said(B, 0b110)];
    assert_eq!(check(&[(at, moved)], &[], &[], &scene), [(Moved, Likely)]);
}

#[test]
fn virtual_addresses_by_advertisement_by_hardware_address_and_by_homes() {
    use Code::{VipConflict, VipRealServer, VipTwoMasters};
    use Confidence::{Likely, Proven};
    let at = "10.0.0.100";
    let both: &[Responder] = &[said(A, 1), said(B, 1)];
    let apart = [owns(at, A, A), owns(at, B, B)];
    let advert =
        |mac, from: &str, router| Advert { mac, from: ip(from), router, priority: 100, addresses: vec![ip(at)] };
    let scene = Scene::default();
    let with = |adverts: &[Advert]| check(&[(at, both)], &apart, adverts, &scene);
    let (a, b) = (advert(A, "10.0.0.4", 51), advert(B, "10.0.0.5", 51));
    assert_eq!(with(std::slice::from_ref(&a)), [(VipRealServer, Proven)]);
    assert_eq!(with(&[a, b]), [(VipTwoMasters, Proven)]);
    let homes: [(&str, &[Responder]); 3] = [(at, both), ("10.0.0.4", &[said(A, 1)]), ("10.0.0.5", &[said(B, 1)])];
    assert_eq!(check(&homes, &apart, &[], &scene), [(VipConflict, Likely)]);
    let known = |ip_text: &str, mac| (ip(ip_text), mac, NudState::Stale);
    let remembered = Scene { known: vec![known("10.0.0.4", A), known("10.0.0.5", B)], ..Scene::default() };
    assert_eq!(check(&[(at, both)], &apart, &[], &remembered), [(VipConflict, Likely)]);
    let router = MacAddr([0, 0, 0x5e, 0, 1, 51]);
    assert_eq!(check(&[(at, &[said(router, 1), said(B, 1)])], &apart, &[], &scene), [(VipRealServer, Likely)]);
    let other = MacAddr([0, 0, 0x5e, 0, 1, 52]);
    assert_eq!(check(&[(at, &[said(router, 1), said(other, 1)])], &[], &[], &scene), [(VipTwoMasters, Proven)]);
}

#[test]
fn many_addresses_of_one_station() {
    use Code::{ManyAddresses, Proxy};
    use Confidence::{Likely, Proven};
    let one: &[Responder] = &[said(R, 1)];
    let answers = [("10.0.0.5", one), ("10.0.0.6", one), ("10.0.0.7", one)];
    let all = Scene { asked: 4, ..Scene::default() };
    let few = Scene { asked: 256, ..Scene::default() };
    assert_eq!(check(&answers, &[forwards("10.0.0.5", R)], &[], &few), [(Proxy, Proven)]);
    assert_eq!(check(&answers, &[owns("10.0.0.5", R, R)], &[], &all), [(ManyAddresses, Proven)]);
    assert_eq!(check(&answers, &[], &[], &all), [(Proxy, Likely)]);
    assert_eq!(check(&answers, &[], &[], &few), []);
}

#[test]
fn what_the_kernel_believes_and_who_sent_the_reply() {
    let wrong = |state| Scene { known: vec![(ip("10.0.0.5"), B, state)], ..Scene::default() };
    let one: &[Responder] = &[said(A, 1)];
    let differs = [(Code::KernelDiffers, Confidence::Proven)];
    assert_eq!(check(&[("10.0.0.5", one)], &[], &[], &wrong(NudState::Stale)), differs);
    assert_eq!(check(&[("10.0.0.5", one)], &[], &[], &wrong(NudState::Permanent)), differs);
    assert_eq!(check(&[("10.0.0.5", one)], &[], &[], &wrong(NudState::Failed)), []);
    let under_another_name = Responder { ether_src: Some(B), ..said(A, 1) };
    let found = check(&[("10.0.0.5", &[under_another_name])], &[], &[], &Scene::default());
    assert_eq!(found, [(Code::SenderDiffers, Confidence::Proven)]);
}

#[test]
fn our_own_second_interface_is_flux_and_a_stranger_a_conflict() {
    let ours = Scene { own: vec![ip("10.0.0.1")], own_macs: vec![(A, "eth1".to_owned())], ..Scene::default() };
    let one = |mac| check(&[("10.0.0.1", &[said(mac, 1)])], &[], &[], &ours);
    assert_eq!(one(A), [(Code::Flux, Confidence::Proven)]);
    assert_eq!(one(B), [(Code::OwnAddress, Confidence::Proven)]);
}

#[test]
fn only_odd_answers_are_tried() {
    let scene = Scene { gateways: vec![ip("10.0.0.254")], ..Scene::default() };
    let answers: BTreeMap<IpAddr, Vec<Responder>> = [
        (ip("10.0.0.1"), vec![said(A, 1)]),
        (ip("10.0.0.2"), vec![said(A, 1), said(B, 1)]),
        (ip("10.0.0.254"), vec![said(R, 1)]),
        (ip("10.0.0.7"), vec![said(R, 1)]),
    ]
    .into();
    let tried: Vec<(IpAddr, MacAddr)> =
        worth_a_trial(&answers, &scene).iter().map(|trial| (trial.ip, trial.via)).collect();
    assert_eq!(tried, [(ip("10.0.0.2"), A), (ip("10.0.0.2"), B), (ip("10.0.0.7"), R)]);
}
