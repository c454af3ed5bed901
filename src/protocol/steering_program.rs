//! Says as a program of classic BPF which socket of a group gets what comes (socket(7),
//! `SO_ATTACH_REUSEPORT_CBPF`): what it returns is an index, in the order in which the sockets began
//! to listen. It never attaches one, and never gives anything to an index of weight 0.
//!
//! The program is a chain of runs. A run is members side by side that have the same weight: a draw
//! that falls into it is divided by the weight, so that a thousand equal members are three
//! instructions. All jumps are over a few instructions, whatever the plan is.
//!
//! A program ends with 0 when it reads what a packet does not have, so it reads only what each has:
//! the header of IP, found through [`NETWORK`], and behind it the ports.

/// How what comes is to be spread over a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// By index in the group; 0 gets nothing. Where nobody has a weight, all are alike, since
    /// it has to go somewhere. Only the first [`RUNS_MAX`] runs of equal weights get anything.
    pub weights: Vec<u32>,
    /// What of it stays together.
    pub spread: Spread,
    /// Exceptions, the first [`ADMITTED_MAX`] of each family.
    pub admitted: Vec<Admitted>,
}

/// What stays together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Each connection is drawn for by itself.
    Connections,
    /// What comes from one address and port goes to one member, as long as the weights stay. Of IPv6
    /// with extension headers before the ports, what comes from one address.
    Clients,
}

/// Which header a packet has: one from IPv4 to a socket of both families has that of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What comes from a port goes to a member whatever its weight: how a probe of ours reaches one that
/// gets nothing yet. It holds for that port of any machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Of the connection.
    pub family: Family,
    /// At the end of whoever connects.
    pub source_port: u16,
    /// Of the member.
    pub index: u32,
}

/// A `struct sock_filter`, as `linux/filter.h` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions are left out if a comparison is true ...
    pub jump_true: u8,
    /// ... or false.
    pub jump_false: u8,
    /// A constant.
    pub k: u32,
}

/// How many runs a program has at most, of five instructions each; it has room for 4096 instructions
/// (`BPF_MAXINSNS`).
pub const RUNS_MAX: usize = 700;

/// How many ports of each family are admitted at most, of two instructions each.
pub const ADMITTED_MAX: usize = 128;

/// What the weights add up to at most. The remainder of a draw of 32 bits favours small numbers, by
/// less than 0.1 % with this.
const TOTAL_MAX: u64 = 1 << 22;

/// `SKF_NET_OFF`: offsets from here on are from the network header. A program begins at the payload
/// otherwise.
const NETWORK: u32 = 0_u32.wrapping_sub(0x10_0000);

/// `SKF_AD_OFF + SKF_AD_PROTOCOL` and `SKF_AD_OFF + SKF_AD_RANDOM`.
const PROTOCOL: u32 = 0_u32.wrapping_sub(0x1000);
const RANDOM: u32 = 0_u32.wrapping_sub(0x1000).wrapping_add(56);

/// `ETH_P_IP`; what else reaches a socket of IP is IPv6.
const IPV4: u32 = 0x0800;

/// Where the next header of IPv6 is told, where its source is, and where the ports are if that is
/// one of these.
const V6_NEXT: u32 = NETWORK.wrapping_add(6);
const V6_SOURCE: u32 = NETWORK.wrapping_add(8);
const V6_PORT: u32 = NETWORK.wrapping_add(40);
const TCP: u32 = 6;
const UDP: u32 = 17;

const V4_SOURCE: u32 = NETWORK.wrapping_add(12);

/// Odd numbers of many bits (Chris Wellons, "Prospecting for Hash Functions", lowbias32).
const MIX_FIRST: u32 = 0x7feb_352d;
const MIX_SECOND: u32 = 0x846c_a68b;

/// Codes of `linux/bpf_common.h`: A and X are the two registers, K is the constant.
const A_FROM_WORD: u16 = 0x20;
const A_FROM_HALF: u16 = 0x28;
const A_FROM_BYTE: u16 = 0x30;
const A_FROM_HALF_AT_X: u16 = 0x48;
const A_FROM_K: u16 = 0x00;
/// X is the length of a header of IPv4.
const X_FROM_HEADER: u16 = 0xb1;
const X_FROM_A: u16 = 0x07;
const X_FROM_MEMORY: u16 = 0x61;
const STORE_A: u16 = 0x02;
const ADD: u16 = 0x04;
const SUBTRACT: u16 = 0x14;
const MULTIPLY: u16 = 0x24;
const DIVIDE: u16 = 0x34;
const SHIFT_RIGHT: u16 = 0x74;
const REMAINDER: u16 = 0x94;
const XOR_X: u16 = 0xac;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const RETURN_K: u16 = 0x06;
const RETURN_A: u16 = 0x16;

/// Members side by side with one weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u32,
    members: u32,
    weight: u32,
}

/// The program for a plan, at most 4096 instructions.
#[must_use]
pub fn compile(plan: &Plan) -> Vec<Instruction> {
    let mut program = Vec::new();
    admit(&mut program, &plan.admitted);
    let runs = runs(&plan.weights);
    match runs[..] {
        [] => program.push(with(RETURN_K, 0)),
        // There is nothing to draw for.
        [Run { first, members: 1, .. }] => program.push(with(RETURN_K, first)),
        _ => {
            match plan.spread {
                Spread::Connections => program.push(with(A_FROM_WORD, RANDOM)),
                Spread::Clients => hash_source(&mut program),
            }
            choose(&mut program, &runs);
        }
    }
    program
}

/// The runs that get something, with weights that do not add up to too much.
fn runs(weights: &[u32]) -> Vec<Run> {
    let nobody = weights.iter().all(|weight| *weight == 0);
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let scaled = |weight: u32| match weight {
        0 => u32::from(nobody),
        _ if sum <= TOTAL_MAX => weight,
        // A weight is a chance, however small.
        _ => u32::try_from(u64::from(weight) * TOTAL_MAX / sum).unwrap_or(u32::MAX).max(1),
    };
    let mut runs: Vec<Run> = Vec::new();
    for (index, weight) in (0_u32..).zip(weights) {
        let weight = scaled(*weight);
        match runs.last_mut() {
            Some(run) if run.weight == weight => run.members += 1,
            Some(_) | None => runs.push(Run { first: index, members: 1, weight }),
        }
    }
    runs.retain(|run| run.weight > 0);
    runs.truncate(RUNS_MAX);
    runs
}

/// Returns the index that belongs to the draw in A.
fn choose(program: &mut Vec<Instruction>, runs: &[Run]) {
    let total = runs.iter().map(|run| run.members * run.weight).sum();
    program.push(with(REMAINDER, total));
    let mut begin = 0;
    for (number, Run { first, members, weight }) in runs.iter().copied().enumerate() {
        let end = begin + members * weight;
        let mut steps = Vec::new();
        if members == 1 {
            steps.push(with(RETURN_K, first));
        } else {
            steps.extend((begin > 0).then(|| with(SUBTRACT, begin)));
            steps.extend((weight > 1).then(|| with(DIVIDE, weight)));
            steps.extend((first > 0).then(|| with(ADD, first)));
            steps.push(with(RETURN_A, 0));
        }
        if number + 1 < runs.len() {
            // Four steps at most, far fewer than a jump can leave out.
            program.push(jump(IF_AT_LEAST, end, u8::try_from(steps.len()).unwrap_or(u8::MAX), 0));
        }
        program.extend(steps);
        begin = end;
    }
}

/// Returns the index of what is admitted.
fn admit(program: &mut Vec<Instruction>, admitted: &[Admitted]) {
    for family in [Family::V4, Family::V6] {
        let of_family = admitted.iter().filter(|admitted| admitted.family == family);
        let mut steps = Vec::new();
        for Admitted { source_port, index, .. } in of_family.take(ADMITTED_MAX) {
            steps.push(jump(IF_EQUAL, u32::from(*source_port), 0, 1));
            steps.push(with(RETURN_K, *index));
        }
        if steps.is_empty() {
            continue;
        }
        let mut block = match family {
            Family::V4 => {
                vec![with(X_FROM_HEADER, NETWORK), with(A_FROM_HALF_AT_X, NETWORK)]
            }
            Family::V6 => vec![
                with(A_FROM_BYTE, V6_NEXT),
                jump(IF_EQUAL, TCP, 2, 0),
                jump(IF_EQUAL, UDP, 1, 0),
                skip(1 + steps.len()),
                with(A_FROM_HALF, V6_PORT),
            ],
        };
        block.append(&mut steps);
        program.push(with(A_FROM_HALF, PROTOCOL));
        // The jump over the block has room for a long way, which a comparison has not.
        program.push(match family {
            Family::V4 => jump(IF_EQUAL, IPV4, 1, 0),
            Family::V6 => jump(IF_EQUAL, IPV4, 0, 1),
        });
        program.push(skip(block.len()));
        program.append(&mut block);
    }
}

/// Makes a draw of where a packet comes from: the same for the same.
fn hash_source(program: &mut Vec<Instruction>) {
    let mut v4 = vec![
        with(A_FROM_WORD, V4_SOURCE),
        with(MULTIPLY, MIX_FIRST),
        // The length of the header has to be in X, so the address waits in the scratch memory.
        with(STORE_A, 0),
        with(X_FROM_HEADER, NETWORK),
        with(A_FROM_HALF_AT_X, NETWORK),
        with(X_FROM_MEMORY, 0),
        with(XOR_X, 0),
    ];
    let mut v6 = vec![with(A_FROM_WORD, V6_SOURCE), with(MULTIPLY, MIX_FIRST), with(X_FROM_A, 0)];
    for word in 1..4 {
        v6.push(with(A_FROM_WORD, V6_SOURCE.wrapping_add(4 * word)));
        v6.push(with(XOR_X, 0));
        v6.push(with(MULTIPLY, MIX_FIRST));
        v6.push(with(X_FROM_A, 0));
    }
    v6.extend([
        with(A_FROM_BYTE, V6_NEXT),
        jump(IF_EQUAL, TCP, 3, 0),
        jump(IF_EQUAL, UDP, 2, 0),
        with(A_FROM_K, 0),
        skip(1),
        with(A_FROM_HALF, V6_PORT),
        with(XOR_X, 0),
    ]);
    v4.push(skip(v6.len()));
    program.push(with(A_FROM_HALF, PROTOCOL));
    program.push(jump(IF_EQUAL, IPV4, 1, 0));
    program.push(skip(v4.len()));
    program.append(&mut v4);
    program.append(&mut v6);
    for (shift, factor) in [(16, MIX_FIRST), (15, MIX_SECOND)] {
        program.extend([
            with(X_FROM_A, 0),
            with(SHIFT_RIGHT, shift),
            with(XOR_X, 0),
            with(MULTIPLY, factor),
        ]);
    }
    program.extend([with(X_FROM_A, 0), with(SHIFT_RIGHT, 16), with(XOR_X, 0)]);
}

fn with(code: u16, k: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, k }
}

fn jump(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}

/// A jump over so many instructions, of any number.
fn skip(instructions: usize) -> Instruction {
    with(JUMP, u32::try_from(instructions).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
