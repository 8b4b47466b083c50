//! Names of services and regions that things are kept by: metrics, pace buckets, what is throttled.
//!
//! A host says any name to be its service or region, and clients choose hosts. Only names that the table or the operator knows are kept
//! apart; all others are one, so that nobody can fill a store, or crowd real names out of it, with made-up ones.

use std::collections::HashSet;

use crate::knowledge::Knowledge;
use crate::settings::EngineSettings;

/// Stands for every name that nobody knows.
pub const OTHER: &str = "other";

/// The names that the operator's settings have, beside the table's.
#[derive(Debug, Default)]
pub struct Labels {
    services: HashSet<Box<str>>,
    regions: HashSet<Box<str>>,
}

impl Labels {
    /// Takes them from routes, and the region of hosts that tell none.
    pub fn new(settings: &EngineSettings) -> Self {
        let routes = &settings.routes;
        Self {
            services: routes.iter().filter_map(|route| route.service.as_deref()).map(Box::from).collect(),
            // Hosts that serve every region are signed for with `*`.
            regions: routes
                .iter()
                .filter_map(|route| route.region.as_deref())
                .chain([settings.default_region.as_str(), "*"])
                .map(Box::from)
                .collect(),
        }
    }

    /// A signing name, or `other`. An empty one stays so.
    pub fn service<'a>(&self, knowledge: &Knowledge, name: &'a str) -> &'a str {
        if name.is_empty() || knowledge.has_service(name) || self.services.contains(name) { name } else { OTHER }
    }

    /// A region, or `other`. An empty one stays so.
    pub fn region<'a>(&self, knowledge: &Knowledge, name: &'a str) -> &'a str {
        if name.is_empty() || knowledge.has_region(name) || self.regions.contains(name) { name } else { OTHER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_table_and_of_the_settings_are_known() {
        let knowledge = Knowledge::shipped().unwrap();
        let settings = EngineSettings::from_json(
            r#"{"default_region": "xx-home-1", "routes": [{"host": "a", "service": "minio"}, {"host": "b", "region": "xx-lab-1"}]}"#,
        );
        let labels = Labels::new(&settings.unwrap());
        for name in [
            "",
            "sqs",
            "dynamodb",
            "s3",
            "s3express",
            "s3-outposts",
            "s3-object-lambda",
            "execute-api",
            "es",
            "neptune-db",
            "lambda",
            "minio",
        ] {
            assert_eq!(labels.service(&knowledge, name), name);
        }
        for name in ["made-up", "SQS", "sqs ", "dynamodb2"] {
            assert_eq!(labels.service(&knowledge, name), OTHER, "{name}");
        }
        for name in ["", "us-east-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1", "us-iso-east-1", "*", "xx-home-1", "xx-lab-1"] {
            assert_eq!(labels.region(&knowledge, name), name);
        }
        for name in ["us-made-1", "us-east-9", "aws-global", "US-EAST-1"] {
            assert_eq!(labels.region(&knowledge, name), OTHER, "{name}");
        }
    }
}
