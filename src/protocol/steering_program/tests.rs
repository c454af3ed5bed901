//! An interpreter of classic BPF, written from the kernel's `Documentation/networking/filter.rst`, runs
//! what is compiled.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What a program may read.
#[derive(Clone, Debug)]
struct Packet {
    random: u32,
    protocol: u16,
    /// From the network header on.
    bytes: Vec<u8>,
}

fn v4(source: [u8; 4], port: u16, options_words: u8) -> Packet {
    let mut bytes = vec![0; 20 + usize::from(options_words) * 4];
    bytes[0] = 0x45 + options_words;
    bytes[12..16].copy_from_slice(&source);
    bytes.extend(port.to_be_bytes());
    bytes.extend([0; 6]);
    Packet { random: 0, protocol: 0x0800, bytes }
}

fn v6(source: [u8; 16], port: u16, next: u8) -> Packet {
    let mut bytes = vec![0; 40];
    bytes[0] = 0x60;
    bytes[6] = next;
    bytes[8..24].copy_from_slice(&source);
    bytes.extend(port.to_be_bytes());
    bytes.extend([0; 6]);
    Packet { random: 0, protocol: 0x86dd, bytes }
}

fn drawn(random: u32) -> Packet {
    Packet { random, ..v4([127, 0, 0, 1], 4711, 0) }
}

/// What it returns, 0 where it reads what is not there. Panics where the kernel would refuse it.
fn run(program: &[Instruction], packet: &Packet) -> u32 {
    assert!(program.len() <= 4096);
    let (mut a, mut x, mut memory) = (0_u32, 0_u32, [0_u32; 16]);
    let load = |k: u32, size: usize| match (k, size) {
        (RANDOM, 4) => Some(packet.random),
        (PROTOCOL, 2) => Some(u32::from(packet.protocol)),
        _ => {
            let at = usize::try_from(k.wrapping_sub(NETWORK)).unwrap();
            let bytes = packet.bytes.get(at..at.checked_add(size)?)?;
            Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        }
    };
    let mut at = 0;
    loop {
        let Instruction { code, jump_true, jump_false, k } = program[at];
        at += 1;
        let loaded = match code {
            A_FROM_WORD => Some(load(k, 4)),
            A_FROM_HALF => Some(load(k, 2)),
            A_FROM_BYTE => Some(load(k, 1)),
            A_FROM_HALF_AT_X => Some(load(k.wrapping_add(x), 2)),
            _ => None,
        };
        match (loaded, code) {
            (Some(Some(value)), _) => a = value,
            (Some(None), _) => return 0,
            (None, X_FROM_HEADER) => match load(k, 1) {
                Some(byte) => x = (byte & 15) * 4,
                None => return 0,
            },
            (None, A_FROM_K) => a = k,
            (None, X_FROM_A) => x = a,
            (None, STORE_A) => memory[usize::try_from(k).unwrap()] = a,
            (None, X_FROM_MEMORY) => x = memory[usize::try_from(k).unwrap()],
            (None, ADD) => a = a.wrapping_add(k),
            (None, SUBTRACT) => a = a.wrapping_sub(k),
            (None, MULTIPLY) => a = a.wrapping_mul(k),
            (None, DIVIDE) => a /= k,
            (None, REMAINDER) => a %= k,
            (None, SHIFT_RIGHT) => a >>= k,
            (None, XOR_X) => a ^= x,
            (None, JUMP) => at += usize::try_from(k).unwrap(),
            (None, IF_EQUAL) => at += usize::from(if a == k { jump_true } else { jump_false }),
            (None, IF_AT_LEAST) => at += usize::from(if a >= k { jump_true } else { jump_false }),
            (None, RETURN_K) => return k,
            (None, RETURN_A) => return a,
            (None, code) => panic!("no such code: {code:#x}"),
        }
    }
}

fn plan(weights: &[u32]) -> Plan {
    Plan { weights: weights.to_vec(), spread: Spread::Connections, admitted: Vec::new() }
}

/// How often each index comes out over one whole turn of draws.
fn shares(plan: &Plan, total: u32) -> BTreeMap<u32, u32> {
    let program = compile(plan);
    let mut shares = BTreeMap::new();
    for random in 0..total {
        *shares.entry(run(&program, &drawn(random))).or_default() += 1;
    }
    shares
}

#[test]
fn equal_members_are_few_instructions() {
    assert_eq!(compile(&plan(&[1; 1000])).len(), 3);
    let parked = [vec![0; 100], vec![7; 900], vec![0; 24]].concat();
    assert_eq!(compile(&plan(&parked)).len(), 5);
    assert_eq!(compile(&plan(&[0, 0, 9, 0])), [with(RETURN_K, 2)]);
}

#[test]
fn nobody_with_a_weight_is_everybody_alike_and_nobody_at_all_is_the_first() {
    assert_eq!(shares(&plan(&[0, 0, 0]), 300), BTreeMap::from([(0, 100), (1, 100), (2, 100)]));
    assert_eq!(shares(&plan(&[]), 10), BTreeMap::from([(0, 10)]));
}

#[test]
fn weights_that_add_up_to_too_much_keep_their_proportions_and_none_is_lost() {
    let program = compile(&plan(&[u32::MAX, 1, 0, u32::MAX]));
    let returned = |draw| run(&program, &drawn(draw));
    let half = u32::try_from(TOTAL_MAX / 2).unwrap();
    assert_eq!([0, half - 2, half - 1, half, half + 2].map(returned)[0], 0);
    assert!((half - 2..half + 2).any(|draw| returned(draw) == 1));
    assert_eq!(returned(half + 2), 3);
}

#[test]
fn what_does_not_fit_gets_nothing() {
    let weights: Vec<u32> = (0..4000).map(|index| index / 2 % 2 * (2 + index / 4 % 5)).collect();
    let admitted =
        |family| move |port| Admitted { family, source_port: port, index: u32::from(port) };
    let ports = 1..2000;
    let admitted = ports.clone().map(admitted(Family::V4)).chain(ports.map(admitted(Family::V6)));
    for spread in [Spread::Connections, Spread::Clients] {
        let admitted = admitted.clone().collect();
        let program = compile(&Plan { weights: weights.clone(), spread, admitted });
        assert!((3000..=4096).contains(&program.len()), "{}", program.len());
        for random in 0..5000 {
            let index = run(&program, &Packet { random, ..v4([1, 2, 3, 4], 60_000, 0) });
            assert_ne!(weights[usize::try_from(index).unwrap()], 0);
        }
        assert_eq!(run(&program, &v4([1, 2, 3, 4], 128, 0)), 128);
        assert_eq!(run(&program, &v6([1; 16], 128, 17)), 128);
    }
}

#[test]
fn clients_stay_where_they_are_and_spread() {
    let weights = [1, 0, 1, 2];
    let program = compile(&Plan { spread: Spread::Clients, ..plan(&weights) });
    for v6_too in [false, true] {
        let mut shares = [0_u32; 4];
        for client in 0..4000_u16 {
            // Both kinds of neighbours: many ports of one address, and many addresses.
            let [high, low] = client.to_be_bytes();
            let port = 40_000 + client % 2 * client;
            let mut address = [0x20; 16];
            address[13..15].copy_from_slice(&[high, low]);
            let packet =
                if v6_too { v6(address, port, 17) } else { v4([10, high, low, 1], port, 0) };
            let index = run(&program, &packet);
            assert_eq!(run(&program, &Packet { random: 77, ..packet }), index);
            shares[usize::try_from(index).unwrap()] += 1;
        }
        assert_eq!(shares[1], 0);
        for (share, wanted) in [(shares[0], 1000), (shares[2], 1000), (shares[3], 2000)] {
            assert!(share.abs_diff(wanted) < 150, "{shares:?}");
        }
    }
}

#[test]
fn ports_count_as_far_as_they_can_be_read() {
    let program = compile(&Plan { spread: Spread::Clients, ..plan(&[1; 1000]) });
    let returned = |packet| run(&program, &packet);
    let source = [9; 16];
    assert_ne!(returned(v6(source, 1, 17)), returned(v6(source, 2, 17)));
    // A destination header: what stands where the port would be is something else.
    assert_eq!(returned(v6(source, 1, 60)), returned(v6(source, 2, 60)));
    assert_ne!(returned(v4([9; 4], 1, 0)), returned(v4([9; 4], 2, 0)));
    assert_eq!(returned(v4([9; 4], 1, 0)), returned(v4([9; 4], 1, 3)));
}

#[test]
fn a_port_is_admitted_in_its_family_only() {
    let admitted = vec![
        Admitted { family: Family::V4, source_port: 1000, index: 1 },
        Admitted { family: Family::V6, source_port: 1000, index: 2 },
        Admitted { family: Family::V6, source_port: 1001, index: 1 },
    ];
    let program = compile(&Plan { admitted, ..plan(&[1, 0, 0]) });
    let returned = |packet| run(&program, &packet);
    for options in 0..=10 {
        assert_eq!(returned(v4([127, 0, 0, 1], 1000, options)), 1);
        assert_eq!(returned(v4([127, 0, 0, 1], 1001, options)), 0);
    }
    for next in [6, 17] {
        assert_eq!(returned(v6([1; 16], 1000, next)), 2);
        assert_eq!(returned(v6([1; 16], 1001, next)), 1);
        assert_eq!(returned(v6([1; 16], 1002, next)), 0);
    }
    assert_eq!(returned(v6([1; 16], 1000, 60)), 0);
}

proptest! {
    #[test]
    fn each_index_has_its_share(
        weights in proptest::collection::vec(prop_oneof![Just(0_u32), Just(1), 0..20_u32], 1..40),
        start in any::<u16>(),
    ) {
        let total: u32 = weights.iter().sum();
        prop_assume!(total > 0);
        let program = compile(&plan(&weights));
        let mut shares = vec![0; weights.len()];
        // A whole turn, from anywhere.
        for random in 0..total {
            let index = run(&program, &drawn(u32::from(start) * total + random));
            shares[usize::try_from(index).unwrap()] += 1;
        }
        prop_assert_eq!(shares, weights);
    }

    #[test]
    fn a_client_never_goes_to_a_member_of_weight_0(
        weights in proptest::collection::vec(prop_oneof![Just(0_u32), Just(1), any::<u32>()], 1..40),
        source in any::<[u8; 16]>(),
        port in any::<u16>(),
        next in prop_oneof![Just(17_u8), any::<u8>()],
    ) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        let program = compile(&Plan { spread: Spread::Clients, ..plan(&weights) });
        let [a, b, c, d, ..] = source;
        for packet in [v4([a, b, c, d], port, a % 11), v6(source, port, next)] {
            let index = run(&program, &packet);
            prop_assert_ne!(weights[usize::try_from(index).unwrap()], 0);
        }
    }
}
