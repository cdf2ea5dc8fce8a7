//! The multiplexer's codec alone: the part of its cost that is no system call.

use std::hint::black_box;

use colima_net::mux::frame::{Frame, MAX_FRAME, MAX_PAYLOAD, decode, encode};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn frames(criterion: &mut Criterion) {
    let payload = vec![7; MAX_PAYLOAD];
    let mut group = criterion.benchmark_group("data frame");
    for length in [64, MAX_PAYLOAD] {
        let frame = Frame::Data {
            stream: 1,
            bytes: &payload[..length],
        };
        let mut wire = Vec::with_capacity(MAX_FRAME);
        encode(&frame, &mut wire);
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(format!("decode {length}"), |bencher| {
            bencher.iter(|| decode(black_box(&wire)).is_ok());
        });
        group.bench_function(format!("encode {length}"), |bencher| {
            bencher.iter(|| {
                wire.clear();
                encode(black_box(&frame), &mut wire);
            });
        });
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
