//! aarch64 assembly as the compiler writes it, as far as it orders and accesses memory.

use std::collections::HashMap;

/// Whom a ring is shared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Processors: the inner shareable domain.
    Smp,
    /// Devices: the outer one.
    Dma,
}

impl Scope {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Smp => "smp",
            Self::Dma => "dma",
        }
    }

    /// The barrier between loads and what follows them.
    pub(super) fn load_barrier(self) -> &'static str {
        match self {
            Self::Smp => "ishld",
            Self::Dma => "oshld",
        }
    }

    /// The domain that barriers name.
    fn domain(self) -> &'static str {
        match self {
            Self::Smp => "ish",
            Self::Dma => "osh",
        }
    }
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) mnemonic: String,
    pub(super) operands: Vec<String>,
}

/// A function's instructions, and where its labels are.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) instructions: Vec<Instruction>,
    pub(super) labels: HashMap<String, usize>,
}

/// Instructions that order nothing for a device, or more than a processor needs. They must be nowhere.
pub(super) fn forbidden(text: &str, scope: Scope) -> Vec<String> {
    let found = |instruction: &Instruction| {
        let mnemonic = instruction.mnemonic.as_str();
        let barrier = matches!(mnemonic, "dmb" | "dsb");
        let other_domain = barrier && !instruction.operands[0].starts_with(scope.domain());
        // These reach the inner shareable domain.
        let ordered = ["stlr", "stlur", "stlxr", "ldar", "ldapr", "ldapur", "ldaxr"]
            .iter()
            .any(|ordered| mnemonic.starts_with(ordered));
        other_domain || ordered && scope == Scope::Dma
    };
    text.lines()
        .filter_map(Instruction::parse)
        .filter(found)
        .map(|instruction| {
            let operands = instruction.operands.join(", ");
            let name = scope.name();
            format!("`{} {operands}` in {name}", instruction.mnemonic)
        })
        .collect()
}

impl Instruction {
    /// The instruction in a line, if there is one.
    fn parse(line: &str) -> Option<Self> {
        let line = line.split("//").next()?.trim();
        if line.is_empty() || line.starts_with('.') || line.ends_with(':') || line.contains(" = ") {
            return None;
        }
        let (mnemonic, operands) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        // A comma in brackets is part of an address.
        let mut depth = 0;
        let operands = operands.split(|character| {
            match character {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ => {}
            }
            character == ',' && depth == 0
        });
        Some(Self {
            mnemonic: mnemonic.to_owned(),
            operands: operands
                .map(|operand| operand.trim().to_owned())
                .filter(|operand| !operand.is_empty())
                .collect(),
        })
    }

    /// The register that a memory access's address is made of.
    pub(super) fn base(&self) -> Option<&str> {
        let address = self.operands.iter().find_map(|o| o.strip_prefix('['))?;
        address.split([',', ']']).next().map(str::trim)
    }
}

impl Function {
    /// The function of that name, or the one that it is another name of.
    pub(super) fn find(text: &str, name: &str) -> Result<Self, String> {
        let alias = format!("{name} = ");
        let name = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(&alias))
            .unwrap_or(name);
        let start = format!("{name}:");
        let lines = text
            .lines()
            .skip_while(|line| line.trim() != start)
            .take_while(|line| !line.starts_with(".Lfunc_end"));
        let mut function = Self {
            instructions: Vec::new(),
            labels: HashMap::new(),
        };
        for line in lines {
            if let Some(label) = line.strip_suffix(':') {
                let at = function.instructions.len();
                function.labels.insert(label.to_owned(), at);
            }
            function.instructions.extend(Instruction::parse(line));
        }
        if function.instructions.is_empty() {
            Err("there is no such function".to_owned())
        } else {
            Ok(function)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
\t.globl\tfirst
first:
\t.cfi_startproc
\tldr\tx13, [x2, x10, lsl #3]
\tcbz\tw8, .LBB0_1
\t//APP
\tdmb\tosh
\t//NO_APP
.LBB0_1:
\tret
.Lfunc_end0:
second = first
";

    #[test]
    fn functions_are_found_by_all_their_names() {
        for name in ["first", "second"] {
            let function = Function::find(TEXT, name).unwrap();
            let mnemonics: Vec<_> = function
                .instructions
                .iter()
                .map(|instruction| instruction.mnemonic.as_str())
                .collect();
            assert_eq!(mnemonics, ["ldr", "cbz", "dmb", "ret"]);
            assert_eq!(function.labels[".LBB0_1"], 3);
            let load = &function.instructions[0];
            assert_eq!(load.operands, ["x13", "[x2, x10, lsl #3]"]);
            assert_eq!(load.base(), Some("x2"));
        }
        assert!(Function::find(TEXT, "third").is_err());
    }

    #[test]
    fn weaker_and_stronger_barriers_are_found() {
        assert!(forbidden(TEXT, Scope::Dma).is_empty());
        assert_eq!(forbidden(TEXT, Scope::Smp), ["`dmb osh` in smp"]);
        for weaker in [
            "dmb ish",
            "dmb ishld",
            "dsb sy",
            "stlrh w0, [x1]",
            "ldapr x0, [x1]",
        ] {
            assert_eq!(forbidden(weaker, Scope::Dma).len(), 1, "{weaker}");
        }
        assert!(forbidden("stlrh w0, [x1]", Scope::Smp).is_empty());
    }
}
