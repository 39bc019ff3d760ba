//! The Lambda function `ec2-curfew`: wiring only.

use ec2_curfew::{ec2::Aws, handle, telemetry};
use lambda_runtime::{Error, Runtime, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(std::env::var("AWS_LAMBDA_LOG_LEVEL").ok().as_deref());
    let aws = Aws::from_env().await;
    Runtime::new(service_fn(|event| handle(event, aws.clone()))).run().await
}
