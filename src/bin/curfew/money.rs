//! Money, exactly: a price is a decimal, and hours are seconds.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use chrono::TimeDelta;

use crate::week::words::number;

/// Digits behind the point that a price has (Price List: `0.0960000000`).
const DIGITS: usize = 10;
/// What a cent is of the smallest unit.
const CENT: i128 = 3600 * 10_i128.pow(DIGITS as u32 - 2);

/// What an hour costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Price {
    /// In units of its last digit.
    hour: u64,
    /// Like `USD`.
    pub(crate) currency: String,
}

impl Price {
    /// Reads one, like `0.0960000000`; digits beyond the tenth don't count.
    pub(crate) fn parse(text: &str, currency: &str) -> Option<Self> {
        let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(rest) {
            return None;
        }
        let rest: String = rest.chars().chain(std::iter::repeat('0')).take(DIGITS).collect();
        Some(Self { hour: format!("{whole}{rest}").parse().ok()?, currency: currency.to_owned() })
    }

    /// Returns what so much time costs.
    pub(crate) fn of(&self, time: TimeDelta) -> Money {
        Money(i128::from(self.hour) * i128::from(time.num_seconds()))
    }

    /// Returns it as decimals, without useless zeros.
    pub(crate) fn decimals(&self) -> String {
        let unit = 10_u64.pow(DIGITS as u32);
        let rest = format!("{:0DIGITS$}", self.hour % unit);
        format!("{}.{:0<2}", self.hour / unit, rest.trim_end_matches('0'))
    }

    /// Writes it, like `$0.096`.
    pub(crate) fn written(&self) -> String {
        with_sign(&self.decimals(), &self.currency)
    }
}

/// An amount of some currency: a price's last digit, for a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Money(i128);

impl Money {
    /// Returns it in cents, rounded.
    pub(crate) fn cents(self) -> i128 {
        (self.0 + CENT / 2).div_euclid(CENT)
    }

    /// Returns it as decimals, like `1234.50`.
    pub(crate) fn decimals(self) -> String {
        let cents = self.cents();
        format!("{}.{:02}", cents / 100, cents % 100)
    }

    /// Writes it, like `$1,234.50` or `CNY 1,234.50`.
    pub(crate) fn written(self, currency: &str) -> String {
        let cents = self.cents();
        with_sign(&format!("{}.{:02}", number((cents / 100) as f64), cents % 100), currency)
    }

    /// Returns a share of it.
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

/// Amounts, each in its currency.
pub(crate) type Amounts = BTreeMap<String, Money>;

/// Adds up amounts, currency by currency.
pub(crate) fn sum<'a>(amounts: impl IntoIterator<Item = (&'a str, Money)>) -> Amounts {
    let mut all = Amounts::new();
    for (currency, money) in amounts {
        *all.entry(currency.to_owned()).or_default() += money;
    }
    all
}

/// Writes amounts, like `$12.00 and CNY 80.00`; none is no money.
pub(crate) fn written(amounts: &Amounts) -> String {
    let each: Vec<String> = amounts.iter().map(|(currency, money)| money.written(currency)).collect();
    each.join(" and ")
}

/// Puts a currency before an amount: only the dollar has a sign that is nobody else's here.
fn with_sign(amount: &str, currency: &str) -> String {
    if currency == "USD" { format!("${amount}") } else { format!("{currency} {amount}") }
}
