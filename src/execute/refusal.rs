//! Pure: EC2's error code → what it is about, and so what to do.
//!
//! The codes are those of the EC2 API reference, "Error codes for the Amazon EC2 API".

use crate::ec2::{Error, ErrorKind};

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// One instance of the call: take it out, the others go through.
    Instance,
    /// No room in one zone for one instance type: that group later, the others at once.
    Capacity,
    /// A limit of the account, for an instance type: what fits goes through, the rest is not hammered.
    Limit,
    /// A permission, or a code we don't know: may be one instance, may be all.
    OneOrAll,
    /// Too many calls: slow down, and repeat the same call.
    Throttled,
    /// EC2 or the network is unwell: repeat the same call.
    Unwell,
    /// The account or the region as a whole.
    Target,
    /// Our own time is over.
    TooLate,
}

/// Tells what an error is about.
#[must_use]
pub fn classify(error: &Error) -> Class {
    let status = match error.kind {
        ErrorKind::TooLate => return Class::TooLate,
        ErrorKind::NoAnswer => return Class::Unwell,
        ErrorKind::Refused { status } => status,
    };
    match error.code.as_str() {
        "IncorrectInstanceState"
        | "IncorrectSpotRequestState"
        | "InvalidParameterValue"
        | "OperationNotPermitted"
        | "ReservationCapacityExceeded"
        | "TagLimitExceeded"
        | "Unsupported"
        | "UnsupportedHibernationConfiguration"
        | "UnsupportedOperation" => Class::Instance,
        code if code.starts_with("InvalidInstanceID") => Class::Instance,
        "InsufficientHostCapacity" | "InsufficientInstanceCapacity" => Class::Capacity,
        "InstanceLimitExceeded" | "VcpuLimitExceeded" => Class::Limit,
        "AuthFailure"
        | "Blocked"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "OptInRequired"
        | "PendingVerification"
        | "RequestExpired"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => Class::Target,
        "RequestLimitExceeded"
        | "EC2ThrottledException"
        | "RequestThrottled"
        | "SlowDown"
        | "TooManyRequestsException" => Class::Throttled,
        code if code.starts_with("Throttling") => Class::Throttled,
        _ if status == 429 => Class::Throttled,
        _ if status >= 500 => Class::Unwell,
        // UnauthorizedOperation, and any 4xx of tomorrow.
        _ => Class::OneOrAll,
    }
}

/// Tells whether a later attempt may go better all by itself.
#[must_use]
pub fn may_pass(error: &Error) -> bool {
    match classify(error) {
        Class::Capacity | Class::Throttled | Class::Unwell | Class::TooLate => true,
        Class::Instance | Class::Limit | Class::OneOrAll | Class::Target => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: &str, status: u16) -> Class {
        classify(&Error { code: code.to_owned(), message: String::new(), kind: ErrorKind::Refused { status } })
    }

    #[test]
    fn a_code_counts_for_more_than_its_status() {
        assert_eq!(class("InsufficientInstanceCapacity", 500), Class::Capacity);
        assert_eq!(class("RequestLimitExceeded", 503), Class::Throttled);
        assert_eq!(class("ThrottlingException", 400), Class::Throttled);
        assert_eq!(class("SlowDown", 503), Class::Throttled);
        assert_eq!(class("InvalidInstanceID.NotFound", 400), Class::Instance);
        assert_eq!(class("UnauthorizedOperation", 403), Class::OneOrAll);
        assert_eq!(class("VcpuLimitExceeded", 400), Class::Limit);
        assert_eq!(class("InternalError", 500), Class::Unwell);
        assert_eq!(class("OptInRequired", 401), Class::Target);
    }

    #[test]
    fn a_code_that_nobody_has_heard_of_is_isolated_or_repeated_never_ignored() {
        assert_eq!(class("FutureError", 418), Class::OneOrAll);
        assert_eq!(class("FutureError", 599), Class::Unwell);
    }
}
