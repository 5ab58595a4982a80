//! Interfaces as classes: those that no rule tells apart are one.

/// The interfaces that the rules tell apart: the names they give, and one that stands for all others
/// of each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// A name for each class.
    pub names: Vec<String>,
    /// Whether the class is this one name; else the pattern that it is of, `+` for any other.
    pub kinds: Vec<Option<String>>,
}

impl Names {
    /// Of names and beginnings of names.
    pub fn new(mut exact: Vec<String>, mut prefixes: Vec<String>) -> Self {
        exact.push("lo".to_owned());
        exact.retain(|name| !name.is_empty());
        exact.sort();
        exact.dedup();
        prefixes.retain(|prefix| !prefix.is_empty());
        prefixes.sort();
        prefixes.dedup();
        let signature = |name: &str| -> Vec<bool> { prefixes.iter().map(|p| name.starts_with(p.as_str())).collect() };
        let mut names: Vec<String> = exact.clone();
        let mut kinds = vec![None; names.len()];
        let mut seen: Vec<Vec<bool>> = Vec::new();
        let stems = prefixes.iter().map(|p| (p.as_str(), format!("{p}+")));
        for (stem, kind) in std::iter::once(("", "+".to_owned())).chain(stems) {
            let fitting = |name: &String| {
                !exact.contains(name) && name.len() <= 15 && {
                    let own = signature(name);
                    !seen.contains(&own) && (!stem.is_empty() || own.iter().all(|fits| !fits))
                }
            };
            let own = ["eth", "net", "wan", "any", "other", "if"];
            let candidates: Box<dyn Iterator<Item = String>> = if stem.is_empty() {
                Box::new((0..10).flat_map(move |n| own.map(|o| format!("{o}{n}"))))
            } else {
                let stem = stem.to_owned();
                let tails = (0..100).map(|n| n.to_string()).chain(["x".to_owned(), "zz".to_owned(), String::new()]);
                Box::new(tails.map(move |tail| format!("{stem}{tail}")))
            };
            if let Some(name) = candidates.into_iter().find(fitting) {
                seen.push(signature(&name));
                names.push(name);
                kinds.push(Some(kind));
            }
        }
        Self { names, kinds }
    }

    /// The numbers of the classes for which this holds.
    pub fn ranges(&self, fits: impl Fn(&str) -> bool) -> Vec<(u128, u128)> {
        (0u128..).zip(&self.names).filter(|(_, name)| fits(name)).map(|(n, _)| (n, n)).collect()
    }
}
