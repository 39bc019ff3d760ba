//! Pure: what EC2's error codes and state reasons mean, and so what to do. One table for errors, one for starts that
//! fell back.
//!
//! The codes are those of the EC2 API reference, "Error codes for the Amazon EC2 API" and "StateReason".

use crate::ec2::{Error, ErrorKind};
use crate::instance::StateReason;

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// One instance of the call: without it, the others go through.
    Instance,
    /// One instance that EC2 refuses for now: retry it after some seconds.
    NotYet,
    /// One instance that can't hibernate, now or ever.
    Hibernation,
    /// No capacity where the instance is: start as many as fit, and retry the rest later.
    Capacity,
    /// A limit of the account on an instance type: start as many as fit, and don't keep retrying the rest.
    Limit,
    /// A missing permission, or credentials that don't count: it may concern one instance, but probably all.
    Permission,
    /// A refusal that this version doesn't know, or one by the account's standing, as for a Marketplace product: it may
    /// concern one instance or all.
    Unknown,
    /// Too many calls: slow down, and repeat the same call.
    Throttled,
    /// EC2 or the network fails, as a whole or for one instance: what happened is unknown.
    Transient,
    /// Our own deadline has passed.
    TooLate,
    /// EC2 carried out a dry run: make no more calls.
    Fatal,
}

/// Returns what an error is about.
#[must_use]
pub fn classify(error: &Error) -> Class {
    let status = match error.kind {
        ErrorKind::TooLate => return Class::TooLate,
        ErrorKind::NoAnswer => return Class::Transient,
        ErrorKind::Refused { status } => status,
    };
    let says = |words: &str| error.message.contains(words);
    match error.code.as_str() {
        super::DRY_RUN_IGNORED => Class::Fatal,
        "UnsupportedHibernationConfiguration" => Class::Hibernation,
        "IncorrectInstanceState" | "UnsupportedOperation" | "OperationNotPermitted" if says("hibernat") => {
            Class::Hibernation
        }
        // "Only Amazon EC2 can restart an interrupted stopped Spot Instance": nothing to wait for.
        "IncorrectSpotRequestState" if says("interrupted") => Class::Instance,
        // A Spot request's state lags behind its instance's.
        "IncorrectSpotRequestState" => Class::NotYet,
        // "is not in a state from which it can be stopped", "has never reached the 'running' state".
        "IncorrectInstanceState" if says("state") => Class::NotYet,
        "IncorrectInstanceState"
        | "InvalidParameterValue"
        | "OperationNotPermitted"
        | "TagLimitExceeded"
        | "Unsupported"
        | "UnsupportedOperation" => Class::Instance,
        code if code.starts_with("InvalidInstanceID") => Class::Instance,
        "InstanceLimitExceeded" | "VcpuLimitExceeded" | "MaxSpotInstanceCountExceeded" | "HostLimitExceeded" => {
            Class::Limit
        }
        "ReservationCapacityExceeded" | "SpotMaxPriceTooLow" => Class::Capacity,
        code if code.starts_with("Insufficient") => Class::Capacity,
        "UnauthorizedOperation"
        | "AuthFailure"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "RequestExpired"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => Class::Permission,
        "RequestLimitExceeded"
        | "EC2ThrottledException"
        | "RequestThrottled"
        | "SlowDown"
        | "TooManyRequestsException" => Class::Throttled,
        code if code.starts_with("Throttling") => Class::Throttled,
        _ if status == 429 => Class::Throttled,
        _ if status >= 500 => Class::Transient,
        _ => Class::Unknown,
    }
}

/// Whether a later attempt may succeed although nobody has changed anything.
#[must_use]
pub fn may_pass(error: &Error) -> bool {
    match classify(error) {
        Class::NotYet | Class::Capacity | Class::Throttled | Class::Transient | Class::TooLate => true,
        Class::Instance | Class::Hibernation | Class::Limit | Class::Permission | Class::Unknown | Class::Fatal => {
            false
        }
    }
}

/// Whether an organization's policy forbids the call, which EC2 words as "with an explicit deny in a service control
/// policy" or "because no service control policy allows" it.
#[must_use]
pub fn is_denied_by_organization(error: &Error) -> bool {
    classify(error) == Class::Permission && error.message.contains("service control policy")
}

/// Why an instance whose start EC2 accepted did not reach `running`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fall {
    /// Somebody stopped it while it was starting.
    Stopped,
    /// There was no capacity after all.
    Capacity,
    /// Something failed inside EC2.
    Transient,
    /// Something that another start won't change.
    Failed {
        /// Whether the reason may be that the KMS key of one of its volumes can't be used.
        key: bool,
    },
}

/// Returns why a start fell back, going by EC2's state reason.
#[must_use]
pub fn fall(reason: Option<&StateReason>) -> Fall {
    let Some(reason) = reason else { return Fall::Failed { key: false } };
    match reason.code.as_str() {
        "Client.UserInitiatedShutdown" | "Client.UserInitiatedHibernate" | "Client.InstanceInitiatedShutdown" => {
            Fall::Stopped
        }
        "Client.InternalError" => Fall::Failed { key: true },
        code if code.to_ascii_lowercase().starts_with("client.invalidkmskey") => Fall::Failed { key: true },
        // EC2 reports a key that can't be used under either code; the message tells which it is.
        "Server.InternalError" if reason.message.contains("Client.InternalError") => Fall::Failed { key: true },
        "Server.InternalError" => Fall::Transient,
        code if code.starts_with("Server.Insufficient") => Fall::Capacity,
        _ => Fall::Failed { key: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: &str, status: u16) -> Class {
        saying(code, status, "")
    }

    fn saying(code: &str, status: u16, message: &str) -> Class {
        let kind = ErrorKind::Refused { status };
        classify(&Error { code: code.to_owned(), message: message.to_owned(), kind })
    }

    #[test]
    fn a_code_counts_for_more_than_its_status() {
        assert_eq!(class("InsufficientInstanceCapacity", 500), Class::Capacity);
        assert_eq!(class("InsufficientFreeAddressesInSubnet", 400), Class::Capacity);
        assert_eq!(class("RequestLimitExceeded", 503), Class::Throttled);
        assert_eq!(class("ThrottlingException", 400), Class::Throttled);
        assert_eq!(class("SlowDown", 503), Class::Throttled);
        assert_eq!(class("InvalidInstanceID.NotFound", 400), Class::Instance);
        assert_eq!(class("UnauthorizedOperation", 403), Class::Permission);
        assert_eq!(class("VcpuLimitExceeded", 400), Class::Limit);
        assert_eq!(class("InternalError", 500), Class::Transient);
        assert_eq!(class("OptInRequired", 401), Class::Unknown);
    }

    #[test]
    fn an_unknown_code_is_isolated_or_retried_never_ignored() {
        assert_eq!(class("FutureError", 418), Class::Unknown);
        assert_eq!(class("FutureError", 599), Class::Transient);
    }

    #[test]
    fn not_ready_yet_and_never_are_told_apart() {
        let state = "The instance 'i-12345678' is not in a state from which it can be stopped.";
        assert_eq!(saying("IncorrectInstanceState", 400, state), Class::NotYet);
        assert_eq!(saying("IncorrectInstanceState", 400, "The instance can't."), Class::Instance);
        let agent = "The instance 'i-12345678' is not ready to hibernate yet. Please retry in a few minutes.";
        assert_eq!(saying("UnsupportedOperation", 400, agent), Class::Hibernation);
        assert_eq!(saying("UnsupportedOperation", 400, "The instance has no EBS root."), Class::Instance);
    }

    #[test]
    fn a_start_falls_back_because_of_capacity_ec2_a_key_or_a_person() {
        let fell =
            |code: &str, message: &str| fall(Some(&StateReason { code: code.to_owned(), message: message.to_owned() }));
        assert_eq!(fell("Client.UserInitiatedShutdown", ""), Fall::Stopped);
        assert_eq!(fell("Server.InsufficientInstanceCapacity", ""), Fall::Capacity);
        assert_eq!(fell("Server.InternalError", "Server.InternalError: Internal error on launch"), Fall::Transient);
        assert_eq!(
            fell("Server.InternalError", "Client.InternalError: Client error on launch"),
            Fall::Failed { key: true }
        );
        assert_eq!(fell("Client.InvalidKMSKey.InvalidState", ""), Fall::Failed { key: true });
        assert_eq!(fell("Client.VolumeLimitExceeded", ""), Fall::Failed { key: false });
        assert_eq!(fall(None), Fall::Failed { key: false });
    }
}
