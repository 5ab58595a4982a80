//! What each cause of the catalogue is, how it looks, what tells it from its look-alikes, and what to do.

mod lower;
mod upper;

use super::causes::Code;

/// One cause, taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lesson {
    /// The cause.
    pub code: Code,
    /// What a user or a program sees of it.
    pub looks: &'static str,
    /// How it comes about.
    pub why: &'static str,
    /// What tells it from its look-alikes, and where to look.
    pub tells: &'static str,
    /// What to do.
    pub cure: &'static str,
}

/// The lesson on a cause.
pub fn lesson(code: Code) -> Option<&'static Lesson> {
    lower::LESSONS.iter().chain(upper::LESSONS).find(|lesson| lesson.code == code)
}

/// The codes nearest to a word that is none: those that have it as a part, else those of its layer.
pub fn near(word: &str) -> Vec<Code> {
    let word = word.to_ascii_lowercase();
    if let Some(code) = Code::ALL.iter().find(|code| code.as_str().split('.').nth(1) == Some(word.as_str())) {
        return vec![*code];
    }
    let has = |code: &&Code| code.as_str().contains(&word);
    let found: Vec<Code> = Code::ALL.iter().filter(|_| !word.is_empty()).filter(has).copied().collect();
    if !found.is_empty() {
        return found;
    }
    let layer = word.split('.').next().unwrap_or("");
    let same = |code: &&Code| code.as_str().split('.').next() == Some(layer);
    Code::ALL.iter().filter(same).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_one_lesson() {
        for code in Code::ALL {
            let lessons = lower::LESSONS.iter().chain(upper::LESSONS).filter(|lesson| lesson.code == *code).count();
            assert_eq!(lessons, 1, "{code}");
        }
        for lesson in lower::LESSONS.iter().chain(upper::LESSONS) {
            for part in [lesson.looks, lesson.why, lesson.tells, lesson.cure] {
                assert!(part.ends_with('.') && part.len() > 12, "{}: {part}", lesson.code);
            }
        }
    }

    #[test]
    fn a_slip_of_the_pen_finds_its_neighbours() {
        assert_eq!(near("rp_filter"), [Code::RouteRpFilter]);
        assert_eq!(near("arp"), [Code::NeighArpFiltered, Code::LbArpFlux]);
        assert!(near("link.dwn").contains(&Code::LinkDown));
        assert!(near("").is_empty() && near("nonsense").is_empty());
    }
}
