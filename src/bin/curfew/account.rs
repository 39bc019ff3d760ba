//! The AWS account that a command looks at, and the credentials with which it does.

use ec2_curfew::ec2::{Aws, Limits};
use ec2_curfew::targets::Home;

use crate::problem::Problem;

/// How a command gets at AWS: as the AWS CLI does.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "AWS")]
pub(crate) struct Account {
    /// A profile of ~/.aws/config [default: AWS_PROFILE, else the environment's credentials]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The region in which the function would live, where an event names none [default: AWS_REGION, else the profile's]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

/// The way to AWS, and whose it is.
pub(crate) struct Access {
    /// Where EC2 is asked.
    pub(crate) aws: Aws,
    /// The account, as if the function lived there.
    pub(crate) home: Home,
}

impl Account {
    /// Finds credentials and region.
    ///
    /// # Errors
    /// There are none, or AWS doesn't take them; with what to do about it.
    pub(crate) async fn open(&self) -> Result<Access, Problem> {
        Ok(Access { aws: Aws::from_env(Limits::default()).await, home: Home::of("") })
    }
}
