//! DescribeInstances: its bounds, and its pages.

use std::ops::RangeInclusive;

use crate::api::Answer;
use crate::cloud::Cloud;
use crate::fault::Refusal;
use crate::filter::Filter;
use crate::machine::Machine;
use crate::place::Place;

/// EC2's bounds on MaxResults.
const MAX_RESULTS: RangeInclusive<usize> = 5..=1000;
/// EC2's bound on filter values in one call.
const FILTER_VALUES_PER_CALL: usize = 200;

pub(crate) struct Describe {
    pub(crate) filters: Vec<Filter>,
    pub(crate) max_results: Option<usize>,
    pub(crate) next_token: Option<String>,
}

impl Describe {
    /// Tells whether EC2 counts it among the bounded ones: it filters, or it asks for pages.
    pub(crate) fn is_bounded(&self) -> bool {
        !self.filters.is_empty() || self.max_results.is_some() || self.next_token.is_some()
    }

    /// Whether one of its filters names a tag.
    fn names_a_tag(&self) -> bool {
        self.filters.iter().any(|filter| filter.name == "tag-key" || filter.name.starts_with("tag:"))
    }

    /// Refuses what EC2 refuses without looking at any instance.
    pub(crate) fn check(&self, ids: &[String]) -> Result<(), Refusal> {
        let values: usize = self.filters.iter().map(|filter| filter.values.len()).sum();
        if values > FILTER_VALUES_PER_CALL {
            let message = "The maximum number of filter values specified on a single call is";
            let message = format!("{message} {FILTER_VALUES_PER_CALL}");
            return Err(Refusal::new("FilterLimitExceeded", message));
        }
        if let Some(filter) = self.filters.iter().find(|filter| !filter.is_known()) {
            let message = format!("The filter '{}' is invalid", filter.name);
            return Err(Refusal::new("InvalidParameterValue", message));
        }
        let Some(max) = self.max_results else {
            return Ok(());
        };
        if !ids.is_empty() {
            let message = "The parameter instancesSet cannot be used with the parameter maxResults";
            return Err(Refusal::new("InvalidParameterCombination", message));
        }
        if !MAX_RESULTS.contains(&max) {
            let message = format!("Value ( {max} ) for parameter maxResults is invalid.");
            return Err(Refusal::new("InvalidParameterValue", message));
        }
        Ok(())
    }
}

impl Cloud {
    pub(crate) fn describe(&mut self, place: &Place, ids: &[String], describe: &Describe) -> Result<Answer, Refusal> {
        let matches = |machine: &&Machine| describe.filters.iter().all(|filter| filter.matches(machine));
        let omits = !describe.names_a_tag();
        let all_omit = self.settings.tags_omitted;
        let shown = |machine: &Machine| {
            let mut shown = machine.clone();
            shown.tags_omitted = omits && (all_omit || machine.tags_omitted);
            shown
        };
        // EC2 does not page what is asked for by id.
        if !ids.is_empty() {
            let machines = self.seen(ids).filter(matches).map(shown).collect();
            return Ok(Answer::Instances(machines, None));
        }
        let (after, empties) = match &describe.next_token {
            None => (String::new(), 0),
            Some(token) if self.settings.token_stuck => {
                read_token(token)?;
                return Ok(Answer::Instances(Vec::new(), Some(token.clone())));
            }
            Some(token) => read_token(token)?,
        };
        if empties < self.settings.empty_pages {
            let next = write_token(&after, empties + 1);
            return Ok(Answer::Instances(Vec::new(), Some(next)));
        }
        let most = describe.max_results.unwrap_or(*MAX_RESULTS.end());
        let size = most.min(self.settings.page_size).max(1);
        let is_stuck = self.settings.token_stuck;
        let mut rest = self.seen_after(&after, place).filter(matches);
        let page: Vec<_> = rest.by_ref().take(size).map(shown).collect();
        let last = rest.next().and(page.last());
        let mut next = last.map(|last| write_token(&last.id, 0));
        if is_stuck {
            next = Some(write_token(&after, 0));
        }
        Ok(Answer::Instances(page, next))
    }
}

/// Writes a token: the last id shown, and the empty pages since.
pub(crate) fn write_token(after: &str, empties: usize) -> String {
    format!("{after}~{empties}")
}

pub(crate) fn read_token(token: &str) -> Result<(String, usize), Refusal> {
    let parts = token.split_once('~').and_then(|(after, empties)| {
        let empties = empties.parse().ok()?;
        Some((after.to_owned(), empties))
    });
    parts.ok_or_else(|| Refusal::new("InvalidNextToken", "The specified token is not valid"))
}
