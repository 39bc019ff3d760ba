//! List prices of instances: from AWS's Price List, cached in a file for a week, or from a file given by the user.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::{Days, NaiveDate, Utc};
use ec2_curfew::ec2::{Aws, Billing, Error};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::aws_json::{Client, PRICING};
use crate::money::Price;
use crate::problem::Problem;

/// How long a cached price is used: AWS changes the prices of instances a few times a year.
const BELIEVED: Days = Days::new(7);

/// What a price depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The region.
    pub(crate) region: String,
    /// The instance type.
    pub(crate) kind: String,
    /// The software's usage operation.
    pub(crate) operation: String,
    /// `default` or `dedicated`.
    pub(crate) tenancy: String,
}

impl Key {
    /// Returns what an instance's price depends on.
    pub(crate) fn of(region: &str, billing: &Billing) -> Self {
        Self {
            region: region.to_owned(),
            kind: billing.instance_type.clone(),
            operation: billing.usage_operation.clone(),
            tenancy: billing.tenancy.clone(),
        }
    }
}

fn linux() -> String {
    "RunInstances".to_owned()
}

fn shared() -> String {
    "default".to_owned()
}

fn dollars() -> String {
    "USD".to_owned()
}

/// A price in a file: a misspelt field would be another price's.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    region: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default = "linux")]
    operation: String,
    #[serde(default = "shared")]
    tenancy: String,
    price: String,
    #[serde(default = "dollars")]
    currency: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<NaiveDate>,
}

/// A file of prices.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    prices: Vec<Entry>,
}

/// The prices that are known.
#[derive(Debug)]
pub(crate) struct Prices {
    known: BTreeMap<Key, (Price, Option<NaiveDate>)>,
    /// Whether unknown prices may be asked from Price List.
    online: bool,
    /// The cache file.
    cache: Option<PathBuf>,
}

impl Prices {
    /// Reads a file of prices, which then is all that is known; without one, the cache, and Price List is asked for the
    /// rest.
    ///
    /// # Errors
    /// The file can't be read; an unreadable cache is no error.
    pub(crate) fn open(file: Option<&Path>) -> Result<Self, Problem> {
        match file {
            Some(path) => {
                let name = path.display();
                let example = r#"write it like {"prices": [{"region": "us-east-1", "type": "m5.large", "price": "0.096"}]}; operation, tenancy and currency are RunInstances (Linux), default and USD if left out"#;
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| Problem::new(format!("can't read {name}: {error}")))?;
                let file: File = serde_json::from_str(&text)
                    .map_err(|error| Problem::new(format!("{name} is no file of prices: {error}")).help(example))?;
                let known =
                    read(file).map_err(|price| Problem::new(format!("{name}: {price:?} is no price")).help(example))?;
                Ok(Self { known, online: false, cache: None })
            }
            None => {
                let cache = cache();
                let text = cache.as_ref().and_then(|path| std::fs::read(path).ok());
                // A cache that can't be read is replaced.
                let file: File = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
                let mut known = read(file).unwrap_or_default();
                let today = Utc::now().date_naive();
                known.retain(|_, (_, asked)| asked.is_some_and(|day| day <= today && today <= day + BELIEVED));
                Ok(Self { known, online: true, cache })
            }
        }
    }

    /// Returns a price, if it is known.
    pub(crate) fn of(&self, key: &Key) -> Option<&Price> {
        self.known.get(key).map(|(price, _)| price)
    }

    /// Asks Price List for the prices that are not known yet, and caches the answers.
    ///
    /// # Errors
    /// Price List didn't answer; the answers until then are kept.
    pub(crate) async fn ask(&mut self, aws: &Aws, keys: &BTreeSet<Key>) -> Result<(), Error> {
        let unknown: Vec<&Key> = keys.iter().filter(|key| !self.known.contains_key(*key)).collect();
        if !self.online || unknown.is_empty() {
            return Ok(());
        }
        let today = Utc::now().date_naive();
        let mut asked = Ok(());
        for key in unknown {
            match ask(aws, key).await {
                Ok(price) => self.known.extend(price.map(|price| (key.clone(), (price, Some(today))))),
                Err(error) => {
                    asked = Err(error);
                    break;
                }
            }
        }
        self.keep();
        asked
    }

    /// Writes the cache. If it can't be written, Price List is asked again the next time.
    fn keep(&self) {
        let Some(path) = &self.cache else { return };
        let entry = |(key, (price, asked)): (&Key, &(Price, Option<NaiveDate>))| Entry {
            region: key.region.clone(),
            kind: key.kind.clone(),
            operation: key.operation.clone(),
            tenancy: key.tenancy.clone(),
            price: price.decimals(),
            currency: price.currency.clone(),
            asked: *asked,
        };
        let file = File { prices: self.known.iter().map(entry).collect() };
        let written = || -> Option<()> {
            let text = serde_json::to_string_pretty(&file).ok()?;
            std::fs::create_dir_all(path.parent()?).ok()?;
            // Atomically, because another `curfew` may be reading it.
            let new = path.with_extension(format!("{}.new", std::process::id()));
            std::fs::write(&new, text).ok()?;
            std::fs::rename(new, path).ok()
        };
        let _ = written();
    }
}

fn read(file: File) -> Result<BTreeMap<Key, (Price, Option<NaiveDate>)>, String> {
    let one = |it: Entry| {
        let price = Price::parse(&it.price, &it.currency).ok_or(it.price)?;
        let Entry { region, kind, operation, tenancy, .. } = it;
        Ok((Key { region, kind, operation, tenancy }, (price, it.asked)))
    };
    file.prices.into_iter().map(one).collect()
}

/// Returns the cache file's path (XDG Base Directory Specification: relative paths are ignored).
fn cache() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(folder.join("curfew/prices.json"))
}

/// Asks Price List for an On-Demand price of running instances, not of unused reservations; the lowest if there are
/// several (Billing user guide, "Finding services and products using the AWS Price List Query API").
async fn ask(aws: &Aws, key: &Key) -> Result<Option<Price>, Error> {
    // China has its own Price List; everybody else's is in us-east-1.
    let region = if key.region.starts_with("cn-") { "cn-northwest-1" } else { "us-east-1" };
    let client = Client::new(aws.config(), PRICING, Some(region))?;
    let tenancy = if key.tenancy == "dedicated" { "Dedicated" } else { "Shared" };
    let filters = [
        ("regionCode", key.region.as_str()),
        ("instanceType", &key.kind),
        ("operation", &key.operation),
        ("tenancy", tenancy),
        ("capacitystatus", "Used"),
    ];
    let filters = filters.map(|(field, value)| json!({ "Type": "TERM_MATCH", "Field": field, "Value": value }));
    let mut input = json!({ "ServiceCode": "AmazonEC2", "FormatVersion": "aws_v1", "Filters": filters });
    let mut found: Vec<Price> = Vec::new();
    loop {
        let page = client.call("GetProducts", &input).await?;
        let products = page["PriceList"].as_array().into_iter().flatten().filter_map(Value::as_str);
        found.extend(products.filter_map(|product| serde_json::from_str(product).ok()).flat_map(|it| on_demand(&it)));
        match page["NextToken"].as_str().filter(|token| !token.is_empty()) {
            Some(token) => input["NextToken"] = json!(token),
            None => break,
        }
    }
    found.sort_by_key(|price| (price.of(chrono::TimeDelta::hours(1)), price.currency.clone()));
    Ok(found.into_iter().next())
}

/// Reads a product's hourly prices, except those of zero, which are for something else (such as a reservation in use).
fn on_demand(product: &Value) -> Vec<Price> {
    let terms = product["terms"]["OnDemand"].as_object().into_iter().flat_map(|terms| terms.values());
    let dimensions = terms.filter_map(|term| term["priceDimensions"].as_object()).flat_map(|it| it.values());
    let by_the_hour = dimensions.filter(|it| it["unit"] == "Hrs" || it["unit"] == "Hours");
    let prices = by_the_hour.filter_map(|it| it["pricePerUnit"].as_object()).flatten();
    let read = prices.filter_map(|(currency, price)| Price::parse(price.as_str()?, currency));
    read.filter(|price| price.of(chrono::TimeDelta::hours(1)) > crate::money::Money::default()).collect()
}
