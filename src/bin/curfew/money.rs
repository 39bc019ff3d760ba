//! Exact amounts of money: prices are decimals, and time is counted in seconds.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use chrono::TimeDelta;

use crate::week::words::number;

/// Decimal places of a price (Price List: `0.0960000000`).
const DIGITS: usize = 10;
/// A cent in units of [`Money`]: a price's last digit, for a second.
const CENT: i128 = 3600 * 10_i128.pow(DIGITS as u32 - 2);

/// The price of an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Price {
    /// In units of the last of its [`DIGITS`].
    hour: u64,
    /// The currency's ISO 4217 code, like `USD`.
    pub(crate) currency: String,
}

impl Price {
    /// Reads a price, like `0.0960000000`; decimals beyond the tenth are dropped. None for anything else.
    pub(crate) fn parse(text: &str, currency: &str) -> Option<Self> {
        let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(rest) {
            return None;
        }
        let rest: String = rest.chars().chain(std::iter::repeat('0')).take(DIGITS).collect();
        Some(Self { hour: format!("{whole}{rest}").parse().ok()?, currency: currency.to_owned() })
    }

    /// Returns what this time costs.
    pub(crate) fn of(&self, time: TimeDelta) -> Money {
        Money(i128::from(self.hour) * i128::from(time.num_seconds()))
    }

    /// Returns it as a decimal number, without trailing zeros but with at least two decimals.
    pub(crate) fn decimals(&self) -> String {
        let unit = 10_u64.pow(DIGITS as u32);
        let rest = format!("{:0DIGITS$}", self.hour % unit);
        format!("{}.{:0<2}", self.hour / unit, rest.trim_end_matches('0'))
    }

    /// Returns it with its currency, like `$0.096`.
    pub(crate) fn written(&self) -> String {
        with_sign(&self.decimals(), &self.currency)
    }
}

/// An amount of some currency, counted in 1/3600 of the last digit of a [`Price`], which is what a second costs at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Money(i128);

impl Money {
    /// Returns it in cents, rounded half up.
    pub(crate) fn cents(self) -> i128 {
        (self.0 + CENT / 2).div_euclid(CENT)
    }

    /// Returns it as a decimal number, like `1234.50`.
    pub(crate) fn decimals(self) -> String {
        let cents = self.cents();
        format!("{}.{:02}", cents / 100, cents % 100)
    }

    /// Returns it with its currency, like `$1,234.50` or `CNY 1,234.50`.
    pub(crate) fn written(self, currency: &str) -> String {
        let cents = self.cents();
        with_sign(&format!("{}.{:02}", number((cents / 100) as f64), cents % 100), currency)
    }

    /// Returns `part / of` of it; nothing if `of` is 0.
    pub(crate) fn share(self, part: i64, of: i64) -> Self {
        Self(if of == 0 { 0 } else { self.0 * i128::from(part) / i128::from(of) })
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

/// Amounts by currency.
pub(crate) type Amounts = BTreeMap<String, Money>;

/// Adds up amounts by currency.
pub(crate) fn sum<'a>(amounts: impl IntoIterator<Item = (&'a str, Money)>) -> Amounts {
    let mut all = Amounts::new();
    for (currency, money) in amounts {
        *all.entry(currency.to_owned()).or_default() += money;
    }
    all
}

/// Returns amounts as text, like `$12.00 and CNY 80.00`; empty if there are none.
pub(crate) fn written(amounts: &Amounts) -> String {
    let each: Vec<String> = amounts.iter().map(|(currency, money)| money.written(currency)).collect();
    each.join(" and ")
}

/// Puts the currency before an amount; only US dollars have an unambiguous sign among AWS's currencies.
fn with_sign(amount: &str, currency: &str) -> String {
    if currency == "USD" { format!("${amount}") } else { format!("{currency} {amount}") }
}
