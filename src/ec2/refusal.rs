//! Pure: EC2's words → what they are about, and so what to do. One table for answers, one for a fallen start.
//!
//! The codes are those of the EC2 API reference, "Error codes for the Amazon EC2 API" and "StateReason".

use crate::ec2::{Error, ErrorKind};
use crate::instance::StateReason;

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// One instance of the call: take it out, the others go through.
    Instance,
    /// One instance that EC2 refuses for now: again after seconds.
    NotYet,
    /// Memory of one instance can't be saved, now or ever.
    Hibernation,
    /// No capacity for it where it is: what fits goes through, the rest later.
    Capacity,
    /// A limit of the account for an instance type: what fits goes through, the rest is not hammered.
    Limit,
    /// A permission, or the account's standing: may be one instance's, may be all's.
    Permission,
    /// A refusal that this version doesn't know: may be one instance's, may be all's.
    Unknown,
    /// Too many calls: slow down, and repeat the same call.
    Throttled,
    /// EC2 or the network fails, as a whole or for one instance: what happened is unknown.
    Transient,
    /// Our own time is over.
    TooLate,
    /// EC2 does what it was only asked about: nothing more may be asked.
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
        | "Blocked"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "OptInRequired"
        | "PendingVerification"
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

/// Whether a later attempt may go better all by itself.
#[must_use]
pub fn may_pass(error: &Error) -> bool {
    match classify(error) {
        Class::NotYet | Class::Capacity | Class::Throttled | Class::Transient | Class::TooLate => true,
        Class::Instance | Class::Hibernation | Class::Limit | Class::Permission | Class::Unknown | Class::Fatal => {
            false
        }
    }
}

/// Whether an organization's policy forbids what was asked, in EC2's words "with an explicit deny in a service control
/// policy" or "because no service control policy allows" it.
#[must_use]
pub fn is_denied_by_organization(error: &Error) -> bool {
    classify(error) == Class::Permission && error.message.contains("service control policy")
}

/// Why a start that EC2 accepted did not come to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fall {
    /// Somebody stopped it on its way up.
    Stopped,
    /// There was no capacity after all.
    Capacity,
    /// Something failed inside EC2.
    Transient,
    /// Something that a second start won't change.
    Failed {
        /// The key of one of its volumes may be out of reach.
        key: bool,
    },
}

/// Returns why a start fell back, by EC2's reason for it.
#[must_use]
pub fn fall(reason: Option<&StateReason>) -> Fall {
    let Some(reason) = reason else { return Fall::Failed { key: false } };
    match reason.code.as_str() {
        "Client.UserInitiatedShutdown" | "Client.UserInitiatedHibernate" | "Client.InstanceInitiatedShutdown" => {
            Fall::Stopped
        }
        "Client.InternalError" => Fall::Failed { key: true },
        code if code.to_ascii_lowercase().starts_with("client.invalidkmskey") => Fall::Failed { key: true },
        // EC2 files a key out of reach under either code; the message tells.
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
        assert_eq!(class("OptInRequired", 401), Class::Permission);
    }

    #[test]
    fn a_code_that_nobody_has_heard_of_is_isolated_or_repeated_never_ignored() {
        assert_eq!(class("FutureError", 418), Class::Unknown);
        assert_eq!(class("FutureError", 599), Class::Transient);
    }

    #[test]
    fn what_is_not_ready_is_told_from_what_never_will_be() {
        let state = "The instance 'i-12345678' is not in a state from which it can be stopped.";
        assert_eq!(saying("IncorrectInstanceState", 400, state), Class::NotYet);
        assert_eq!(saying("IncorrectInstanceState", 400, "The instance can't."), Class::Instance);
        let agent = "The instance 'i-12345678' is not ready to hibernate yet. Please retry in a few minutes.";
        assert_eq!(saying("UnsupportedOperation", 400, agent), Class::Hibernation);
        assert_eq!(saying("UnsupportedOperation", 400, "The instance has no EBS root."), Class::Instance);
    }

    #[test]
    fn a_fallen_start_is_room_s_ec2_s_a_key_s_or_somebody_s() {
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
