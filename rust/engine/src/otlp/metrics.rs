//! The registry's metrics, as OTLP has them: the same names, labels as attributes, all counted from the start on.

use std::time::SystemTime;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum};
use prometheus::proto::{self, MetricFamily, MetricType};

use super::{nanos, text};

const SINCE_START: i32 = AggregationTemporality::Cumulative as i32;

/// `began`: when counting did.
pub(super) fn converted(families: &[MetricFamily], began: SystemTime, now: SystemTime) -> Vec<Metric> {
    let span = (nanos(began), nanos(now));
    families.iter().map(|family| metric(family, span)).collect()
}

fn metric(family: &MetricFamily, span: (u64, u64)) -> Metric {
    let points = |value: fn(&proto::Metric) -> f64| family.get_metric().iter().map(|metric| point(metric, value(metric), span)).collect();
    let data = match family.get_field_type() {
        MetricType::COUNTER => Data::Sum(Sum {
            data_points: points(|metric| metric.get_counter().get_value()),
            aggregation_temporality: SINCE_START,
            is_monotonic: true,
        }),
        MetricType::HISTOGRAM => Data::Histogram(Histogram {
            data_points: family.get_metric().iter().map(|metric| histogram(metric, span)).collect(),
            aggregation_temporality: SINCE_START,
        }),
        _ => Data::Gauge(Gauge { data_points: points(|metric| metric.get_gauge().get_value()) }),
    };
    let unit = match family.name() {
        name if name.ends_with("_seconds") => "s",
        name if name.ends_with("_bytes") => "By",
        _ => "",
    };
    Metric { name: family.name().into(), description: family.help().into(), unit: unit.into(), data: Some(data), ..Metric::default() }
}

fn point(metric: &proto::Metric, value: f64, (began, now): (u64, u64)) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(metric),
        start_time_unix_nano: began,
        time_unix_nano: now,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn histogram(metric: &proto::Metric, (began, now): (u64, u64)) -> HistogramDataPoint {
    let histogram = metric.get_histogram();
    let buckets = histogram.get_bucket();
    // Prometheus counts what is below each bound, OTLP what is between two; the last has no bound.
    let (mut below, mut counts) = (0, Vec::with_capacity(buckets.len() + 1));
    for bucket in buckets {
        counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    counts.push(histogram.get_sample_count().saturating_sub(below));
    HistogramDataPoint {
        attributes: attributes(metric),
        start_time_unix_nano: began,
        time_unix_nano: now,
        count: histogram.get_sample_count(),
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: buckets.iter().map(proto::Bucket::upper_bound).collect(),
        ..HistogramDataPoint::default()
    }
}

fn attributes(metric: &proto::Metric) -> Vec<opentelemetry_proto::tonic::common::v1::KeyValue> {
    metric.get_label().iter().map(|label| text(label.name(), label.value())).collect()
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, Registry};

    use super::*;

    #[test]
    fn a_histogram_counts_between_its_bounds() {
        let registry = Registry::new();
        let options = HistogramOpts::new("sigward_test_seconds", "help").buckets(vec![1.0, 2.0]);
        let vec = HistogramVec::new(options, &["service"]).unwrap();
        registry.register(Box::new(vec.clone())).unwrap();
        for value in [0.5, 1.5, 1.75, 9.0] {
            vec.with_label_values(&["s3"]).observe(value);
        }
        let metrics = converted(&registry.gather(), SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        let [metric] = metrics.as_slice() else { panic!("{metrics:?}") };
        assert_eq!((metric.name.as_str(), metric.unit.as_str()), ("sigward_test_seconds", "s"));
        let Some(Data::Histogram(histogram)) = &metric.data else { panic!("{metric:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.bucket_counts.clone(), point.explicit_bounds.clone()), (vec![1, 2, 1], vec![1.0, 2.0]));
        assert_eq!((point.count, point.sum, point.attributes.clone()), (4, Some(12.75), vec![text("service", "s3")]));
    }
}
