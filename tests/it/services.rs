//! A double of AWS's services with a JSON protocol (Smithy, "AWS JSON 1.0 and 1.1"): it answers as a test says, and
//! records the calls.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// An answer: a body, or a status, a code and a message.
pub(crate) type Answer = Result<Value, (u16, &'static str, &'static str)>;

/// The calls: the operation, like `Logs_20140328.FilterLogEvents`, and its input.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

pub(crate) struct Services {
    pub(crate) url: String,
    asked: Asked,
}

impl Services {
    /// Starts a double; `answer` maps an operation and its input to the answer.
    pub(crate) async fn start(answer: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Asked::default();
        let (kept, answer) = (Arc::clone(&asked), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                tokio::spawn(async move { serve(stream, &kept, &*answer).await });
            }
        });
        Self { url, asked }
    }

    /// Returns the operations that were called.
    pub(crate) fn operations(&self) -> BTreeSet<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter_map(|(target, _)| Some(target.rsplit_once('.')?.1.to_owned())).collect()
    }

    /// Returns the inputs with which an operation was called.
    pub(crate) fn asked(&self, operation: &str) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        let of_it = asked.iter().filter(|(it, _)| it.ends_with(&format!(".{operation}")));
        of_it.map(|(_, input)| input.clone()).collect()
    }
}

async fn serve(stream: TcpStream, asked: &Asked, answer: &(dyn Fn(&str, &Value) -> Answer + Send + Sync)) {
    let mut stream = BufReader::new(stream);
    let (mut length, mut target, mut signed) = (0, String::new(), false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let (name, value) = line.trim().split_once(':').unwrap_or((line.trim(), ""));
        match name.to_ascii_lowercase().as_str() {
            "" => break,
            "content-length" => length = value.trim().parse().unwrap(),
            "x-amz-target" => target = value.trim().to_owned(),
            "authorization" => signed = value.contains("AWS4-HMAC-SHA256"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let input: Value = serde_json::from_slice(&body).unwrap();
    asked.lock().unwrap().push((target.clone(), input.clone()));
    let (status, body) = match answer(target.rsplit('.').next().unwrap_or_default(), &input) {
        _ if !signed => (403, json!({ "__type": "MissingAuthenticationToken", "message": "it is not signed" })),
        Ok(body) => (200, body),
        Err((status, code, message)) => (status, json!({ "__type": code, "message": message })),
    };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

/// Builds a product as Price List answers it: JSON in a text (Billing user guide, "Reading the service price list
/// file").
pub(crate) fn product(price: &str, currency: &str) -> Value {
    let dimension = json!({
        "unit": "Hrs", "endRange": "Inf", "beginRange": "0", "appliesTo": [],
        "description": "On Demand", "pricePerUnit": { currency: price },
    });
    let term = json!({ "offerTermCode": "JRTCKXETXF", "termAttributes": {}, "priceDimensions": { "A.JRTCKXETXF.6YS6EN2CT7": dimension } });
    let reserved =
        json!({ "priceDimensions": { "B": { "unit": "Hrs", "pricePerUnit": { currency: "0.0010000000" } } } });
    json!({
        "serviceCode": "AmazonEC2",
        "product": { "productFamily": "Compute Instance", "attributes": {} },
        "terms": { "OnDemand": { "A.JRTCKXETXF": term }, "Reserved": { "B.4NA7Y494T4": reserved } },
    })
    .to_string()
    .into()
}

/// Builds Price List's answer: the product that matches the filters. Each has region, type, operation, tenancy, price
/// and currency.
pub(crate) fn price_list(list: &[[&str; 6]], input: &Value) -> Value {
    let field = |name: &str| {
        let filters = input["Filters"].as_array().unwrap();
        filters.iter().find(|it| it["Field"] == name).map(|it| it["Value"].as_str().unwrap().to_owned()).unwrap()
    };
    assert_eq!((input["ServiceCode"].as_str(), field("capacitystatus").as_str()), (Some("AmazonEC2"), "Used"));
    let asked = ["regionCode", "instanceType", "operation", "tenancy"].map(field);
    let found = list.iter().filter(|it| it[..4] == asked);
    json!({ "FormatVersion": "aws_v1", "PriceList": found.map(|it| product(it[4], it[5])).collect::<Vec<_>>() })
}
