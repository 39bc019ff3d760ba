//! A place: a region of an account, which machines are in and calls go to. Places share no machines, limits or token
//! buckets.

/// The account that the function itself runs in.
pub(crate) const OWN_ACCOUNT: &str = "123456789012";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) account: String,
    pub(crate) region: String,
}
