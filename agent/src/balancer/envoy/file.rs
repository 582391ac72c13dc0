//! What stands in the file: pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::balancer::settings::Name;
use crate::core::front::{Target, Wish, Wishes};

/// The cluster's endpoints. One that drains stays in the list, so that what is in flight there finishes.
pub(super) fn content(cluster: &Name, wishes: &Wishes, addresses: &BTreeMap<Target, SocketAddr>) -> String {
    let endpoint = |(target, wish): (&Target, &Wish)| {
        let address = addresses.get(target)?;
        let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
        // A weight of 0 is refused by Envoy; one that drains has no part anyway.
        let (health, weight) = match wish {
            Wish::Serve { percent } => ("HEALTHY", (*percent).max(1)),
            Wish::Drain => ("DRAINING", 1),
        };
        Some(json!({
            "endpoint": {"address": {"socket_address": socket}},
            "health_status": health,
            "load_balancing_weight": weight,
        }))
    };
    let endpoints: Vec<Value> = wishes.iter().filter_map(endpoint).collect();
    let resource = json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster.to_string(),
        "endpoints": [{"lb_endpoints": endpoints}],
    });
    resource.to_string()
}

/// A discovery response, as Envoy reads it from a file.
pub(super) fn versioned(resource: &str, version: &str) -> String {
    format!("{{\"version_info\":\"{version}\",\"resources\":[{resource}]}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_stays_in_the_file_with_its_state_and_weight() {
        let (a, b) = (Target::Slot("a".parse().expect("slot")), Target::Slot("b".parse().expect("slot")));
        let addresses = [(a.clone(), "127.0.0.1:9001"), (b.clone(), "[::1]:9002")];
        let addresses = addresses.map(|(target, address)| (target, address.parse().expect("address"))).into();
        let wishes = [(a, Wish::Serve { percent: 25 }), (b, Wish::Drain)].into();
        let text = versioned(&content(&"billing".to_owned().try_into().expect("name"), &wishes, &addresses), "abc");
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&read["version_info"], &read["resources"][0]["cluster_name"]), (&json!("abc"), &json!("billing")));
        let endpoints = &read["resources"][0]["endpoints"][0]["lb_endpoints"];
        assert_eq!(endpoints[0]["endpoint"]["address"]["socket_address"]["port_value"], 9001);
        assert_eq!(
            (&endpoints[0]["health_status"], &endpoints[0]["load_balancing_weight"]),
            (&json!("HEALTHY"), &json!(25))
        );
        assert_eq!(endpoints[1]["endpoint"]["address"]["socket_address"]["address"], "::1");
        assert_eq!(
            (&endpoints[1]["health_status"], &endpoints[1]["load_balancing_weight"]),
            (&json!("DRAINING"), &json!(1))
        );
    }
}
