//! What was billed: by Cost Explorer, for some of the last days, beside what the list says.

use std::collections::BTreeMap;

use chrono::{Days, NaiveDate};
use ec2_curfew::ec2::{Aws, Error};
use serde::Serialize;
use serde_json::{Value, json};

use crate::aws_json::{COSTS, Client};

/// How far back Cost Explorer knows single resources (Cost Management API reference, "GetCostAndUsageWithResources").
pub(super) const DAYS: u64 = 14;

/// What was billed for an instance.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Usage {
    /// Hours that it ran.
    pub(super) hours: f64,
    /// What they cost, with the share of what was paid beforehand.
    pub(super) cost: f64,
}

/// What was billed.
#[derive(Debug, Default, Serialize)]
pub(super) struct Billed {
    /// The first day.
    pub(super) from: NaiveDate,
    /// The day after the last.
    pub(super) to: NaiveDate,
    /// The bill's currency.
    pub(super) currency: String,
    /// By instance, of those that Curfew switched.
    pub(super) instances: BTreeMap<String, Usage>,
    /// How much of what was committed was used, day by day, in percent; empty where there are no Savings Plans.
    pub(super) savings_plans: Vec<(NaiveDate, f64)>,
    /// The same of all these days.
    pub(super) utilization: Option<f64>,
}

/// Asks what was billed for instances in the last days.
///
/// # Errors
/// Cost Explorer refused, or didn't answer.
pub(super) async fn ask(aws: &Aws, today: NaiveDate, is_ours: impl Fn(&str) -> bool) -> Result<Billed, Error> {
    let china = aws.own_region().is_some_and(|region| region.starts_with("cn-"));
    let client = Client::new(aws.config(), COSTS, Some(if china { "cn-northwest-1" } else { "us-east-1" }))?;
    let mut billed = Billed { from: today - Days::new(DAYS), to: today, ..Billed::default() };
    let period = json!({ "Start": billed.from, "End": billed.to });
    let filter = |key: &str, value: &str| json!({ "Dimensions": { "Key": key, "Values": [value] } });
    let mut input = json!({
        "TimePeriod": period,
        "Granularity": "DAILY",
        "Metrics": ["AmortizedCost", "UsageQuantity"],
        "GroupBy": [{ "Type": "DIMENSION", "Key": "RESOURCE_ID" }],
        // Without the second, hours and gigabytes would be added up.
        "Filter": { "And": [
            filter("SERVICE", "Amazon Elastic Compute Cloud - Compute"),
            filter("USAGE_TYPE_GROUP", "EC2: Running Hours"),
        ] },
    });
    loop {
        let page = client.call("GetCostAndUsageWithResources", &input).await?;
        let days = page["ResultsByTime"].as_array().into_iter().flatten();
        for group in days.flat_map(|day| day["Groups"].as_array().into_iter().flatten()) {
            let Some(id) = group["Keys"][0].as_str().filter(|id| is_ours(id)) else { continue };
            let usage = billed.instances.entry(id.to_owned()).or_default();
            usage.cost += number(&group["Metrics"]["AmortizedCost"]["Amount"]);
            usage.hours += number(&group["Metrics"]["UsageQuantity"]["Amount"]);
            if let Some(currency) = group["Metrics"]["AmortizedCost"]["Unit"].as_str() {
                currency.clone_into(&mut billed.currency);
            }
        }
        match page["NextPageToken"].as_str().filter(|token| !token.is_empty()) {
            Some(token) => input["NextPageToken"] = json!(token),
            None => break,
        }
    }
    // By the day: "GetSavingsPlansUtilization supports only DAILY and MONTHLY granularities".
    match client.call("GetSavingsPlansUtilization", &json!({ "TimePeriod": period, "Granularity": "DAILY" })).await {
        Ok(page) => {
            let days = page["SavingsPlansUtilizationsByTime"].as_array().into_iter().flatten();
            let day = |it: &Value| {
                let utilization = &it["Utilization"];
                let committed = number(&utilization["TotalCommitment"]) > 0.0;
                let date = it["TimePeriod"]["Start"].as_str()?.get(..10)?.parse().ok()?;
                committed.then(|| (date, number(&utilization["UtilizationPercentage"])))
            };
            billed.savings_plans = days.filter_map(day).collect();
            let total = &page["Total"]["Utilization"];
            let committed = number(&total["TotalCommitment"]) > 0.0;
            billed.utilization = committed.then(|| number(&total["UtilizationPercentage"]));
        }
        // Its way to say that there are none.
        Err(error) if error.code == "DataUnavailableException" => {}
        Err(error) => return Err(error),
    }
    Ok(billed)
}

/// Reads a number, which Cost Explorer writes as a text.
fn number(value: &Value) -> f64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}
