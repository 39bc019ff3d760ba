//! DescribeInstances' filters, written from EC2's documentation alone: the product has its own matcher, and two
//! that agree by construction would prove nothing.

use crate::machine::{Machine, state_code};

/// One filter: a name, and the values of which one must match.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) name: String,
    pub(crate) values: Vec<String>,
}

impl Filter {
    /// Tells whether EC2 knows a filter of this name.
    pub(crate) fn is_known(&self) -> bool {
        self.found_in(&Machine::default()).is_some()
    }

    pub(crate) fn matches(&self, machine: &Machine) -> bool {
        let found = self.found_in(machine).unwrap_or_default();
        self.values.iter().any(|pattern| found.iter().any(|text| matches(pattern, text)))
    }

    /// What the machine has under the filter's name; none for a name that EC2 does not know.
    fn found_in(&self, machine: &Machine) -> Option<Vec<String>> {
        if let Some(key) = self.name.strip_prefix("tag:") {
            return Some(machine.tags.get(key).cloned().into_iter().collect());
        }
        Some(match self.name.as_str() {
            "tag-key" => machine.tags.keys().cloned().collect(),
            "tag-value" => machine.tags.values().cloned().collect(),
            "instance-id" => vec![machine.id.clone()],
            "instance-state-name" => vec![machine.state.clone()],
            "instance-state-code" => vec![state_code(&machine.state).to_string()],
            "instance-type" => vec![machine.kind.clone()],
            "vpc-id" => vec![machine.vpc.clone()],
            "subnet-id" => vec![machine.subnet()],
            "availability-zone" => vec![machine.zone.clone()],
            "instance-lifecycle" => machine.spot.iter().map(|_| "spot".into()).collect(),
            "image-id" => vec![machine.image().into()],
            "private-ip-address" => vec![machine.private_ip.clone()],
            "root-device-type" => vec![machine.root_device_type().into()],
            "hibernation-options.configured" => vec![machine.hibernation.to_string()],
            _ => return None,
        })
    }
}

/// Matches as EC2 does: `*` any text, `?` any one character, `\` takes the next character as it is.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut rest = pattern.chars();
    let Some(first) = rest.next() else {
        return text.is_empty();
    };
    let mut tail = text.chars();
    let next = tail.next();
    match first {
        '*' => matches(rest.as_str(), text) || (next.is_some() && matches(pattern, tail.as_str())),
        '?' => next.is_some() && matches(rest.as_str(), tail.as_str()),
        // A backslash with nothing behind it stands for itself.
        '\\' => next == Some(rest.next().unwrap_or('\\')) && matches(rest.as_str(), tail.as_str()),
        literal => next == Some(literal) && matches(rest.as_str(), tail.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_a_question_mark_one_character_and_a_backslash_takes_them_literally() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "web"),
            ("web-*", "web-"),
            ("*-?", "web-1"),
            ("t3.*", "t3.micro"),
            ("a*b*c", "a-b-b-c"),
            ("?", "ü"),
            (r"\*", "*"),
            (r"50\?", "50?"),
            (r"a\\b", r"a\b"),
            (r"a\", r"a\"),
        ] {
            assert!(matches(pattern, text), "{pattern:?} should match {text:?}");
        }
        for (pattern, text) in
            [("", "a"), ("?", ""), ("web", "Web"), ("web", "web-1"), ("b*", "ab"), (r"\*", "web"), ("t3.*", "t3")]
        {
            assert!(!matches(pattern, text), "{pattern:?} should not match {text:?}");
        }
    }
}
