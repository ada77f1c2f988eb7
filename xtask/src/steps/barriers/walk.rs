//! All ways through a function.

use std::collections::HashSet;

use super::assembly::{Function, Instruction, Scope};
use super::rule::{Event, Rule, State};

/// Where a way has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    at: usize,
    /// Which registers hold the address of the queue, whose fields are private: a bit each.
    private: u32,
    state: State,
}

/// Goes all ways through the function: on each the rule must hold, and one must do all that the operation is for.
pub(super) fn check(function: &Function, scope: Scope, rule: Rule) -> Result<(), String> {
    let start = Place {
        at: 0,
        private: 1, // the first argument
        state: State::Start,
    };
    let mut seen = HashSet::new();
    let mut ahead = vec![start];
    let mut done = false;
    while let Some(place) = ahead.pop() {
        if !seen.insert(place) {
            continue;
        }
        let Some(instruction) = function.instructions.get(place.at) else {
            return Err("it goes on behind its end".to_owned());
        };
        let mut next = Place {
            at: place.at + 1,
            private: private_after(instruction, place.private),
            ..place
        };
        if let Some(event) = event(instruction, place.private, scope) {
            next.state = rule.next(next.state, event).ok_or_else(|| {
                let Instruction { mnemonic, operands } = instruction;
                let (at, state) = (place.at, next.state);
                let operands = operands.join(", ");
                format!("`{mnemonic} {operands}`, instruction {at}, in state {state:?}")
            })?;
        }
        let target = instruction
            .operands
            .last()
            .and_then(|label| function.labels.get(label));
        match instruction.mnemonic.as_str() {
            "ret" => {
                if !rule.may_end(place.state) {
                    return Err(format!("it may end in state {:?}", place.state));
                }
                done |= place.state == State::Done;
            }
            "brk" | "udf" => {}
            // A panic does not come back.
            "bl" if instruction.operands[0].contains("panic") => {}
            "bl" | "blr" | "br" => return Err("it calls something else".to_owned()),
            "b" => ahead.push(Place {
                at: *target.ok_or("it jumps somewhere else")?,
                ..next
            }),
            mnemonic => {
                ahead.push(next);
                if mnemonic.starts_with("b.") || ["cbz", "cbnz", "tbz", "tbnz"].contains(&mnemonic)
                {
                    ahead.push(Place {
                        at: *target.ok_or("it jumps somewhere else")?,
                        ..next
                    });
                }
            }
        }
    }
    if done {
        Ok(())
    } else {
        Err("no way does all of it".to_owned())
    }
}

/// What an instruction does to shared memory.
fn event(instruction: &Instruction, private: u32, scope: Scope) -> Option<Event> {
    let mnemonic = instruction.mnemonic.as_str();
    if mnemonic == "dmb" {
        return Some(if instruction.operands[0] == scope.load_barrier() {
            Event::LoadBarrier
        } else {
            Event::Barrier
        });
    }
    let base = instruction.base()?;
    if base == "sp" || register(base).is_some_and(|base| private & base != 0) {
        return None;
    }
    if mnemonic.starts_with("stl") {
        Some(Event::Release)
    } else if mnemonic.starts_with("st") {
        Some(Event::Store)
    } else if mnemonic.starts_with("ld") {
        Some(Event::Load)
    } else {
        None // a prefetch
    }
}

/// Which registers hold the queue's address behind an instruction.
fn private_after(instruction: &Instruction, private: u32) -> u32 {
    let mnemonic = instruction.mnemonic.as_str();
    let written = match mnemonic {
        "ldp" => 2,
        "cbz" | "cbnz" | "tbz" | "tbnz" | "cmp" | "cmn" | "tst" | "ccmp" | "dmb" => 0,
        _ if mnemonic.starts_with("st") => 0,
        _ => 1,
    };
    let operands = &instruction.operands;
    let written = operands.iter().take(written).filter_map(|o| register(o));
    let written = written.fold(0, |all, register| all | register);
    let is_private = |operand: usize| {
        let from = operands.get(operand).and_then(|from| register(from));
        from.is_some_and(|from| private & from != 0)
    };
    let copies = match mnemonic {
        "mov" | "add" => is_private(1),
        // One of two addresses, by a condition.
        "csel" => is_private(1) && is_private(2),
        _ => false,
    };
    if copies {
        private | written
    } else {
        private & !written
    }
}

/// The bit of a general register.
fn register(name: &str) -> Option<u32> {
    let number: u32 = name.strip_prefix(['x', 'w'])?.parse().ok()?;
    (number < 31).then(|| 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(lines: &str) -> Result<(), String> {
        let text = format!("f:\n{lines}\n.Lfunc_end0:\n");
        let function = Function::find(&text, "f").unwrap();
        check(&function, Scope::Dma, Rule::Publish { sorts: false })
    }

    #[test]
    fn a_publication_lies_between_barriers() {
        let right = "ldr x1, [x0, #8]\nmov x9, x0\nstr w3, [x9, #4]\ncbz w2, .LBB0_1\n\
            dmb osh\nstrh w2, [x1]\n.LBB0_1:\ndmb osh\nldrh w3, [x1, #8]\nret";
        assert_eq!(publish(right), Ok(()));
        let first = right.replacen("dmb osh\n", "", 1);
        assert!(publish(&first).is_err(), "nothing before it");
        let second = right.replacen(".LBB0_1:\ndmb osh\n", ".LBB0_1:\n", 1);
        assert!(publish(&second).is_err(), "nothing behind it");
        let weaker = right.replacen("dmb osh\n", "dmb oshld\n", 1);
        assert!(publish(&weaker).is_err(), "a barrier for loads");
        assert!(
            publish("dmb osh\nldrh w3, [x1]\nret").is_err(),
            "no publication"
        );
    }

    /// A private field may be chosen by a condition; an address that may be shared is not private.
    #[test]
    fn an_address_that_is_chosen_is_private_if_both_are() {
        let chosen = |other: &str| {
            format!(
                "ldr x1, [x0, #8]\nadd x2, x0, #8\ncsel x3, {other}, x2, eq\ndmb osh\n\
                strh w2, [x1]\nldr w4, [x3]\ndmb osh\nldrh w3, [x1, #8]\nret"
            )
        };
        assert_eq!(publish(&chosen("x0")), Ok(()));
        assert_ne!(publish(&chosen("x1")), Ok(()));
    }

    #[test]
    fn other_functions_are_not_looked_into() {
        assert!(publish("bl other\nret").is_err());
        assert!(publish("br x3").is_err());
    }
}
