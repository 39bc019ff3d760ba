//! AWS services with a JSON protocol: one generic call, with the SDK's own signatures, retries and time-outs.
//!
//! For the services that the tool calls besides EC2. An SDK crate for each would take minutes to compile, for a handful
//! of fields, while the runtime below those crates is compiled already. The protocol: Smithy's "AWS JSON 1.0" and
//! "1.1".

use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::retries::classifiers::AwsErrorCodeClassifier;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier};
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::auth::{
    AuthSchemeOptionResolverParams, SharedAuthScheme, SharedAuthSchemeOptionResolver,
};
use aws_smithy_runtime_api::client::identity::SharedIdentityResolver;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::error::ErrorMetadata;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SigningName;
use aws_types::region::SigningRegion;
use aws_types::service_config::ServiceConfigKey;
use ec2_curfew::ec2::{Error, ErrorKind};
use serde_json::Value;

/// How long connecting may take: it takes milliseconds unless something is wrong with the network.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one attempt may take: services that search before they answer (logs, costs) take seconds.
const ATTEMPT: Duration = Duration::from_secs(60);
/// Attempts of a call, after throttling, 5xx and resets, with the SDK's growing pauses. More than the SDK's default of
/// three, since a person would only try again.
const ATTEMPTS: u32 = 5;

/// A service: its names, and where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    /// Its id, as in `AWS_ENDPOINT_URL_DYNAMODB`, `services` of ~/.aws/config, and botocore's `service_id`.
    pub(crate) id: &'static str,
    /// Its name in signatures.
    pub(crate) signing_name: &'static str,
    /// What its host name begins with, before the region.
    pub(crate) host: &'static str,
    /// What the header `X-Amz-Target` begins with, before the operation.
    pub(crate) target: &'static str,
    /// The protocol's version: `1.0` or `1.1`.
    pub(crate) json: &'static str,
}

/// Amazon DynamoDB.
pub(crate) const DYNAMODB: Service =
    Service { id: "DynamoDB", signing_name: "dynamodb", host: "dynamodb", target: "DynamoDB_20120810", json: "1.0" };

/// Amazon CloudWatch's metrics: JSON is one of its protocols (botocore's model of the service, "protocols").
pub(crate) const CLOUDWATCH: Service = Service {
    id: "CloudWatch",
    signing_name: "monitoring",
    host: "monitoring",
    target: "GraniteServiceVersion20100801",
    json: "1.0",
};

/// Amazon CloudWatch Logs.
pub(crate) const LOGS: Service =
    Service { id: "CloudWatch Logs", signing_name: "logs", host: "logs", target: "Logs_20140328", json: "1.1" };

/// AWS Price List.
pub(crate) const PRICING: Service =
    Service { id: "Pricing", signing_name: "pricing", host: "api.pricing", target: "AWSPriceListService", json: "1.1" };

/// AWS Cost Explorer.
pub(crate) const COSTS: Service =
    Service { id: "Cost Explorer", signing_name: "ce", host: "ce", target: "AWSInsightsIndexService", json: "1.1" };

/// A service in a region.
#[derive(Debug)]
pub(crate) struct Client {
    service: Service,
    url: String,
    region: Region,
    config: SdkConfig,
}

impl Client {
    /// Builds a client: for the given region if the service exists only in some (`pricing`), otherwise for the
    /// caller's.
    ///
    /// # Errors
    /// No region is given.
    pub(crate) fn new(config: &SdkConfig, service: Service, region: Option<&'static str>) -> Result<Self, Error> {
        let region = region.map(Region::from_static).or_else(|| config.region().cloned());
        let region = region.ok_or_else(|| not_sent("no region is given".to_owned()))?;
        let url = endpoint(config, service, &region);
        Ok(Self { service, url, region, config: config.clone() })
    }

    /// Calls an operation, and returns its answer.
    ///
    /// # Errors
    /// The service refused, with its code and sentence, or didn't answer; after all retries.
    pub(crate) async fn call(&self, operation: &'static str, input: &Value) -> Result<Value, Error> {
        let (Some(http), Some(credentials)) = (self.config.http_client(), self.config.credentials_provider()) else {
            return Err(not_sent("no credentials".to_owned()));
        };
        let (url, target) = (self.url.clone(), format!("{}.{operation}", self.service.target));
        let content_type = format!("application/x-amz-json-{}", self.service.json);
        let request = move |body: String| {
            let mut request = HttpRequest::new(SdkBody::from(body));
            request.set_method("POST")?;
            request.set_uri(url.clone())?;
            request.headers_mut().insert("content-type", content_type.clone());
            request.headers_mut().insert("x-amz-target", target.clone());
            Ok(request)
        };
        let mut builder = Operation::builder()
            .service_name(self.service.id)
            .operation_name(operation)
            .http_client(http)
            .endpoint_url(&self.url)
            .standard_retry(&RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .retry_classifier(TransientErrorClassifier::<ErrorMetadata>::new())
            .retry_classifier(HttpStatusCodeClassifier::default())
            .retry_classifier(AwsErrorCodeClassifier::<ErrorMetadata>::new())
            .timeout_config(
                TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build(),
            )
            .runtime_plugin(self.signed_by(SharedIdentityResolver::new(credentials)));
        if let Some(version) = self.config.behavior_version() {
            builder = builder.behavior_version(version);
        }
        if let Some(sleep) = self.config.sleep_impl() {
            builder = builder.sleep_impl(sleep);
        }
        if let Some(time) = self.config.time_source() {
            builder = builder.time_source(time);
        }
        Ok(builder.serializer(request).deserializer(read).build().invoke(input.to_string()).await?)
    }

    /// Returns the region that the client calls.
    pub(crate) fn region(&self) -> &str {
        self.region.as_ref()
    }

    fn signed_by(&self, identity: SharedIdentityResolver) -> StaticRuntimePlugin {
        let mut config = Layer::new("signature");
        config.store_put(AuthSchemeOptionResolverParams::new(()));
        config.store_put(SigV4OperationSigningConfig {
            region: Some(SigningRegion::from(self.region.clone())),
            name: Some(SigningName::from_static(self.service.signing_name)),
            ..SigV4OperationSigningConfig::default()
        });
        let resolver = StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID]);
        let mut components = RuntimeComponentsBuilder::new("signature")
            .with_auth_scheme(SharedAuthScheme::new(SigV4AuthScheme::new()))
            .with_auth_scheme_option_resolver(Some(SharedAuthSchemeOptionResolver::new(resolver)));
        components.set_identity_resolver(SCHEME_ID, identity);
        StaticRuntimePlugin::new().with_config(config.freeze()).with_runtime_components(components)
    }
}

/// Returns a service's URL: from `AWS_ENDPOINT_URL_<SERVICE>`, `AWS_ENDPOINT_URL` or the profile, otherwise AWS's own.
fn endpoint(config: &SdkConfig, service: Service, region: &Region) -> String {
    let key = ServiceConfigKey::builder().service_id(service.id).env("AWS_ENDPOINT_URL").profile("endpoint_url");
    let own = key.build().ok().and_then(|key| config.service_config()?.load_config(key));
    let given = own.or_else(|| config.endpoint_url().map(str::to_owned));
    given.unwrap_or_else(|| format!("https://{}.{region}.{}", service.host, dns_suffix(region.as_ref())))
}

/// Returns the DNS suffix of a region's partition (botocore's `partitions.json`).
fn dns_suffix(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "amazonaws.com.cn",
        _ if region.starts_with("eusc-") => "amazonaws.eu",
        _ if region.starts_with("us-iso-") => "c2s.ic.gov",
        _ if region.starts_with("us-isob-") => "sc2s.sgov.gov",
        _ => "amazonaws.com",
    }
}

/// Reads an answer, or the error in its place.
fn read(response: &HttpResponse) -> Result<Value, OrchestratorError<ErrorMetadata>> {
    let body = response.body().bytes().unwrap_or_default();
    let value = serde_json::from_slice::<Value>(if body.is_empty() { b"{}" } else { body });
    if response.status().is_success() {
        return value.map_err(|error| OrchestratorError::response(error.into()));
    }
    let value = value.unwrap_or_default();
    let text = |keys: [&str; 2]| keys.iter().find_map(|key| value[*key].as_str());
    let code = response.headers().get("x-amzn-errortype").or_else(|| text(["__type", "code"]));
    // Smithy, "Operation error serialization": a namespace may come before a #, a URL after a colon.
    let code =
        code.map(|code| code.split(':').next().unwrap_or(code)).map(|code| code.rsplit('#').next().unwrap_or(code));
    let mut error = ErrorMetadata::builder();
    if let Some(code) = code {
        error = error.code(code);
    }
    if let Some(message) = text(["message", "Message"]) {
        error = error.message(message);
    }
    Err(OrchestratorError::operation(error.build()))
}

fn not_sent(message: String) -> Error {
    Error { code: "NotSent".to_owned(), message, kind: ErrorKind::NoAnswer }
}
