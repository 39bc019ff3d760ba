//! Pure: which instances a request selects — as filters to send to EC2, and as a matcher to run here.
//!
//! Both follow EC2's own rules (EC2 developer guide, "Filter your resources"): keys and values are
//! case-sensitive, `*` stands for any run of characters, `?` for one, `\` takes the next literally.

use std::collections::{BTreeMap, BTreeSet};

use crate::instance::{InstanceId, State, Tags};
use crate::wording::tag;

/// Filters a call may carry (EC2 API reference, DescribeInstances).
pub const MAX_FILTERS: usize = 50;
/// Filter values a call may carry, over all its filters; EC2 answers `FilterLimitExceeded`, "the maximum
/// number of filter values specified on a single call is 200".
pub const MAX_FILTER_VALUES: usize = 200;
/// Characters in one filter value; EC2 answers `FilterLimitExceeded` above.
pub const MAX_FILTER_VALUE_CHARS: usize = 255;

/// One value of a filter, with EC2's wildcards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(pub String);

impl Pattern {
    /// Returns whether the whole text matches.
    ///
    /// Backtracks only to the last `*`, so that hostile patterns cost length × length instead of exploding.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let tokens = tokens(&self.0);
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut token) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while at < text.len() {
            match tokens.get(token) {
                Some(Token::Any) => {
                    retry = Some((token + 1, at));
                    token += 1;
                }
                Some(Token::One) => (token, at) = (token + 1, at + 1),
                Some(Token::Char(c)) if *c == text[at] => (token, at) = (token + 1, at + 1),
                _ => match retry {
                    Some((after_star, from)) => {
                        retry = Some((after_star, from + 1));
                        (token, at) = (after_star, from + 1);
                    }
                    None => return false,
                },
            }
        }
        tokens[token..].iter().all(|token| matches!(token, Token::Any))
    }
}

enum Token {
    Any,
    One,
    Char(char),
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut chars = pattern.chars();
    let mut tokens = Vec::new();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            // A backslash at the very end has nothing to escape and stands for itself.
            '\\' => Token::Char(chars.next().unwrap_or('\\')),
            other => Token::Char(other),
        });
    }
    tokens
}

/// Tag keys, each with the values of which one must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagPatterns(pub BTreeMap<String, Vec<Pattern>>);

impl TagPatterns {
    /// Returns a tag that matches: its key, with any of the key's values.
    #[must_use]
    pub fn any_match<'a>(&'a self, tags: &Tags) -> Option<&'a str> {
        self.0.iter().find(|(key, values)| matches_one(tags, key, values)).map(|(key, _)| key.as_str())
    }

    /// Returns whether every key matches with one of its values.
    #[must_use]
    pub fn all_match(&self, tags: &Tags) -> bool {
        self.0.iter().all(|(key, values)| matches_one(tags, key, values))
    }
}

fn matches_one(tags: &Tags, key: &str, values: &[Pattern]) -> bool {
    tags.get(key).is_some_and(|value| values.iter().any(|pattern| pattern.matches(value)))
}

/// What a request selects: never empty, and within EC2's bounds on filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Every key must match one of its values.
    pub tags: TagPatterns,
    /// Other DescribeInstances filters, each with the values of which one must match.
    pub filters: BTreeMap<String, Vec<String>>,
    /// Instances by name; alone, or narrowing the rest.
    pub ids: BTreeSet<InstanceId>,
}

/// The filters of one DescribeInstances call.
pub type Filters = Vec<(String, Vec<String>)>;

impl Selection {
    /// Whether instances are selected by their ids alone.
    #[must_use]
    pub fn ids_alone(&self) -> bool {
        self.tags.0.is_empty() && self.filters.is_empty()
    }

    /// Writes the tags as filters.
    #[must_use]
    pub fn tag_filters(&self) -> Filters {
        let values = |values: &[Pattern]| values.iter().map(|value| value.0.clone()).collect();
        self.tags.0.iter().map(|(key, patterns)| (format!("tag:{key}"), values(patterns))).collect()
    }

    /// Writes the filters of the calls that show what has the tags' keys, whatever their values; none without tags.
    #[must_use]
    pub fn calls_by_keys(&self) -> Vec<Filters> {
        let any = |key: &String| (key.clone(), vec![Pattern("*".to_owned())]);
        let tags = TagPatterns(self.tags.0.keys().map(any).collect());
        if tags.0.is_empty() { Vec::new() } else { Self { tags, ..self.clone() }.calls(&[], None) }
    }

    /// Writes the tags that exclude an instance, as a person would; empty if none does.
    #[must_use]
    pub fn mismatch(&self, tags: &Tags) -> Option<String> {
        let differs = |(key, values): &(&String, &Vec<Pattern>)| !matches_one(tags, key, values);
        let written = self.tags.0.iter().filter(differs).map(|(key, _)| Some(tag(key, tags.get(key)?)));
        written.collect::<Option<Vec<String>>>().filter(|tags| !tags.is_empty()).map(|tags| tags.join(" and "))
    }

    /// Writes the filters of the calls that show only what carries a tag, in one state. None where EC2's bounds have no room
    /// for it, or where instances are named by nothing but their ids: those are shown whatever they are.
    #[must_use]
    pub fn marked_calls(&self, tag: &str, state: State) -> Vec<Filters> {
        let values = |filters: &Filters| filters.iter().map(|(_, values)| values.len()).sum::<usize>();
        let fits = |filters: &Filters| filters.len() <= MAX_FILTERS && values(filters) <= MAX_FILTER_VALUES;
        let mark = ("tag-key".to_owned(), vec![tag.to_owned()]);
        let calls = if self.ids_alone() { Vec::new() } else { self.calls(&[state], None) };
        let taken = self.filters.contains_key("tag-key");
        calls
            .into_iter()
            .map(|call| call.into_iter().chain([mark.clone()]).collect())
            .filter(|call| !taken && fits(call))
            .collect()
    }

    /// Writes the calls' filters: one set for everything, or one for each group of ids.
    ///
    /// `states`, and the key of a tag that they carry, are left out where EC2's bounds have no room for them: whoever
    /// reads the answer checks both anyway.
    #[must_use]
    pub fn calls(&self, states: &[State], tag: Option<&str>) -> Vec<Filters> {
        let mut common = self.tag_filters();
        common.extend(self.filters.iter().map(|(name, values)| (name.clone(), values.clone())));
        let ids_need = usize::from(!self.ids.is_empty());
        let tag = tag.filter(|_| !self.filters.contains_key("tag-key")).map(literal);
        let states = states.iter().map(|state| state.as_str().to_owned()).collect();
        for (name, values) in [("tag-key", tag.into_iter().collect()), ("instance-state-name", states)] {
            let used: usize = common.iter().map(|(_, values)| values.len()).sum();
            let values: Vec<String> = values;
            let fits = used + values.len() + ids_need <= MAX_FILTER_VALUES && common.len() + ids_need < MAX_FILTERS;
            if !values.is_empty() && fits {
                common.push((name.to_owned(), values));
            }
        }
        if self.ids.is_empty() {
            return vec![common];
        }
        let used: usize = common.iter().map(|(_, values)| values.len()).sum();
        let ids: Vec<&InstanceId> = self.ids.iter().collect();
        // `request` keeps one value free for ids, so that a group is never empty.
        ids.chunks(MAX_FILTER_VALUES.saturating_sub(used).max(1))
            .map(|group| {
                let mut filters = common.clone();
                filters.push(("instance-id".to_owned(), group.iter().map(ToString::to_string).collect()));
                filters
            })
            .collect()
    }
}

/// Writes a text as a filter value that matches only that text.
pub(crate) fn literal(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| matches!(c, '*' | '?' | '\\').then_some('\\').into_iter().chain([c]));
    escaped.collect()
}

impl std::fmt::Display for Selection {
    /// Writes it as a person would say it: `curfew=yes and vpc-id=vpc-1`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tags = self.tags.0.iter().map(|(key, values)| {
            let values: Vec<&str> = values.iter().map(|value| value.0.as_str()).collect();
            tag(key, &values.join("|"))
        });
        let filters = self.filters.iter().map(|(name, values)| tag(name, &values.join("|")));
        let ids = (!self.ids.is_empty()).then(|| match self.ids.len() {
            1 => "the id named".to_owned(),
            n => format!("one of the {n} ids named"),
        });
        let parts: Vec<String> = tags.chain(filters).chain(ids).collect();
        f.write_str(&parts.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An oracle that shares nothing with the matcher: a table over all prefixes.
    fn oracle(pattern: &str, text: &str) -> bool {
        let mut units: Vec<(char, bool)> = Vec::new();
        let mut escaped = false;
        for c in pattern.chars() {
            if escaped {
                units.push((c, true));
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else {
                units.push((c, false));
            }
        }
        if escaped {
            units.push(('\\', true));
        }
        let text: Vec<char> = text.chars().collect();
        let mut table = vec![vec![false; text.len() + 1]; units.len() + 1];
        table[0][0] = true;
        for (p, (unit, literal)) in units.iter().enumerate() {
            for t in 0..=text.len() {
                table[p + 1][t] = if *unit == '*' && !literal {
                    table[p][t] || (t > 0 && table[p + 1][t - 1])
                } else {
                    t > 0 && table[p][t - 1] && ((*unit == '?' && !literal) || *unit == text[t - 1])
                };
            }
        }
        table[units.len()][text.len()]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn matching_agrees_with_an_independent_oracle(pattern in r"[abA*?\\é]{0,9}", text in r"[abA*?\\é]{0,9}") {
            prop_assert_eq!(Pattern(pattern.clone()).matches(&text), oracle(&pattern, &text), "{} on {}", pattern, text);
        }
    }

    #[test]
    fn a_hostile_pattern_is_answered_at_once() {
        let pattern = Pattern(format!("{}b", "*a".repeat(120)));
        assert!(!pattern.matches(&"a".repeat(256)));
    }

    fn selection(tags: usize, ids: usize) -> Selection {
        Selection {
            tags: TagPatterns([("k".to_owned(), (0..tags).map(|n| Pattern(n.to_string())).collect())].into()),
            filters: BTreeMap::new(),
            ids: (0..ids).map(|n| InstanceId::parse(&format!("i-{n:017x}")).expect("an id")).collect(),
        }
    }

    #[test]
    fn no_call_ever_carries_more_values_than_ec2_takes_and_every_id_is_asked_for_once() {
        let states = [State::Pending, State::Running, State::Stopping];
        for tags in [0, 1, 150, 196, 197, 198, 199, 200] {
            for ids in [0, 1, 199, 200, 201, 450] {
                if tags + usize::from(ids > 0) > MAX_FILTER_VALUES {
                    continue; // refused by `request`
                }
                let mut selection = selection(tags, ids);
                if tags == 0 {
                    selection.tags = TagPatterns::default();
                }
                let calls = selection.calls(&states, Some("curfew:hours"));
                let mut asked = 0;
                for call in &calls {
                    let values: usize = call.iter().map(|(_, values)| values.len()).sum();
                    assert!(values <= MAX_FILTER_VALUES, "{tags} tags, {ids} ids: {values}");
                    asked += call.iter().find(|(name, _)| name == "instance-id").map_or(0, |(_, ids)| ids.len());
                }
                assert_eq!(asked, ids);
            }
        }
    }
}
