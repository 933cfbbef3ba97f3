//! From the `cel` crate's tree to our own: names and operators are looked up once, and what has no meaning here is refused
//! before the first sale.

use super::{Binary, Function, Macro, MacroKind, Rule, Term, pattern};
use crate::json::Decimal;
use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr};
use std::collections::BTreeSet;

/// Digits up to which a number with a point is exactly the one that was written.
const EXACT_DIGITS: usize = 15;
const BEFORE: &str = "before";

type Compiled<T> = Result<T, (String, u64)>;

pub(super) fn compile(parsed: &IdedExpr) -> Compiled<Rule> {
    let mut compiler = Compiler::default();
    let root = compiler.term(parsed)?;
    let Compiler { most_bound, entities, members, .. } = compiler;
    Ok(Rule { root, locals: most_bound, entities, members })
}

#[derive(Default)]
struct Compiler {
    /// Variables in scope, innermost last.
    bound: Vec<String>,
    most_bound: usize,
    entities: BTreeSet<Box<str>>,
    members: BTreeSet<Box<str>>,
}

fn refuse<T>(node: &IdedExpr, problem: impl Into<String>) -> Compiled<T> {
    Err((problem.into(), node.id))
}

impl Compiler {
    fn term(&mut self, node: &IdedExpr) -> Compiled<Term> {
        match &node.expr {
            Expr::Literal(literal) => self.literal(node, literal),
            Expr::Ident(name) => self.variable(node, name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(node, call),
            Expr::Comprehension(inner) => self.comprehension(node, inner),
            Expr::List(list) if list.optional_indices.is_empty() => Ok(Term::List(self.terms(&list.elements)?)),
            Expr::Map(map) => {
                let entries = map.entries.iter().map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) if !entry.optional => Ok((self.term(&entry.key)?, self.term(&entry.value)?)),
                    _ => refuse(node, "such an entry has no meaning in a rule"),
                });
                Ok(Term::Map(entries.collect::<Compiled<_>>()?))
            }
            Expr::Unspecified | Expr::List(_) | Expr::Struct(_) => refuse(node, "this has no meaning in a rule"),
        }
    }

    fn terms(&mut self, nodes: &[IdedExpr]) -> Compiled<Vec<Term>> {
        nodes.iter().map(|node| self.term(node)).collect()
    }

    fn literal(&self, node: &IdedExpr, literal: &LiteralValue) -> Compiled<Term> {
        Ok(match literal {
            LiteralValue::Null => Term::Null,
            LiteralValue::Boolean(value) => Term::Bool(*value.inner()),
            LiteralValue::Int(value) => Term::Integer(*value.inner()),
            LiteralValue::UInt(value) => match i64::try_from(*value.inner()) {
                Ok(value) => Term::Integer(value),
                Err(_) => return refuse(node, "an integer is below 2^63"),
            },
            LiteralValue::Double(value) => Term::Decimal(self.decimal(node, *value.inner())?),
            LiteralValue::String(value) => Term::Text(value.inner().into()),
            LiteralValue::Bytes(_) => return refuse(node, "bytes have no meaning in a rule"),
        })
    }

    /// The number that was written: its shortest form as a float is that, up to 15 digits.
    fn decimal(&self, node: &IdedExpr, value: f64) -> Compiled<Decimal> {
        let text = value.to_string();
        let significant = text.trim_start_matches(['-', '0', '.']).bytes().filter(u8::is_ascii_digit).count();
        match Decimal::parse(&text).filter(|_| significant <= EXACT_DIGITS) {
            Some(decimal) => Ok(decimal),
            None => refuse(node, "a number with a point has at most 15 digits"),
        }
    }

    fn variable(&mut self, node: &IdedExpr, name: &str) -> Compiled<Term> {
        if let Some(local) = self.bound.iter().rposition(|bound| bound == name) {
            return Ok(Term::Local(local));
        }
        if name == BEFORE {
            return refuse(node, "before needs an entity, as in before.receipts");
        }
        Ok(self.records(name.trim_start_matches('.'), false))
    }

    fn records(&mut self, entity: &str, is_before: bool) -> Term {
        self.entities.insert(entity.into());
        Term::Records { entity: entity.into(), is_before }
    }

    fn select(&mut self, select: &SelectExpr) -> Compiled<Term> {
        let field = select.field.as_str();
        let is_before = matches!(&select.operand.expr, Expr::Ident(name) if name == BEFORE && !self.bound.iter().any(|bound| bound == BEFORE));
        if is_before && !select.test {
            return Ok(self.records(field, true));
        }
        let operand = Box::new(self.term(&select.operand)?);
        self.members.insert(field.into());
        Ok(if select.test { Term::Has(operand, field.into()) } else { Term::Member(operand, field.into()) })
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr) -> Compiled<Term> {
        let target = call.target.as_deref();
        let arguments = target.into_iter().chain(&call.args).map(|node| self.term(node)).collect::<Compiled<Vec<_>>>()?;
        let (name, count) = (call.func_name.as_str(), arguments.len());
        if let Some(operator) = binary(name) {
            let sides = <[Term; 2]>::try_from(arguments).map_err(|_| ("an operator has two sides".to_owned(), node.id))?;
            return Ok(match (operator, sides) {
                // An index by a text is a member.
                (Binary::Index, [whole, Term::Text(field)]) => {
                    self.members.insert(field.clone());
                    Term::Member(Box::new(whole), field)
                }
                (operator, sides) => Term::Binary(operator, Box::new(sides)),
            });
        }
        let mut arguments = arguments.into_iter();
        let mut first = || arguments.next().map(Box::new).ok_or_else(|| ("an argument is missing".to_owned(), node.id));
        match name {
            "!_" => return Ok(Term::Not(first()?)),
            "-_" => return Ok(Term::Negated(first()?)),
            "_&&_" => return Ok(Term::And(arguments.collect())),
            "_||_" => return Ok(Term::Or(arguments.collect())),
            "_?_:_" if count == 3 => {
                let (test, yes, no) = (*first()?, *first()?, *first()?);
                return Ok(Term::Choice(Box::new([test, yes, no])));
            }
            _ => {}
        }
        let Some((function, least, most)) = function(name) else {
            // Whoever reads the schema tells of names that nothing has, with the nearest that something has.
            return Ok(Term::Call(Function::Unknown, Vec::new()));
        };
        if count < least || count > most {
            return refuse(node, format!("{name}() does not take {count} arguments"));
        }
        let mut arguments: Vec<Term> = arguments.collect();
        // A pattern that stands in the rule is compiled with it.
        if let (Function::Matches, [_, Term::Text(text)]) = (function, arguments.as_slice()) {
            let regex = pattern(text).map_err(|problem| (problem, node.id))?;
            return Ok(Term::Matches(Box::new(arguments.swap_remove(0)), Box::new(regex)));
        }
        Ok(Term::Call(function, arguments))
    }

    /// The macros that the parser has unfolded, by the form of their step.
    fn comprehension(&mut self, node: &IdedExpr, inner: &ComprehensionExpr) -> Compiled<Term> {
        let unknown = || refuse(node, "this macro has no meaning in a rule; use all, exists, exists_one, map or filter");
        let Expr::Call(step) = &inner.loop_step.expr else { return unknown() };
        if inner.iter_var2.is_some() {
            return unknown();
        }
        let is_counted = matches!(inner.accu_init.expr, Expr::Literal(LiteralValue::Int(_)));
        let (kind, condition, item) = match (step.func_name.as_str(), step.args.as_slice()) {
            ("_&&_", [_, condition]) => (MacroKind::All, Some(condition), None),
            ("_||_", [_, condition]) => (MacroKind::Exists, Some(condition), None),
            ("_?_:_", [condition, _, _]) if is_counted => (MacroKind::ExistsOne, Some(condition), None),
            ("_?_:_", [condition, taken, _]) => (MacroKind::Map, Some(condition), Some(taken)),
            _ => (MacroKind::Map, None, Some(&inner.loop_step)),
        };
        let item = match item.map(appended) {
            Some(None) => return unknown(),
            item => item.flatten(),
        };
        let range = self.term(&inner.iter_range)?;
        let local = self.bound.len();
        self.bound.push(inner.iter_var.clone());
        self.most_bound = self.most_bound.max(self.bound.len());
        let condition = condition.map(|condition| self.term(condition)).transpose()?;
        let item = item.map(|item| self.term(item)).transpose()?;
        self.bound.truncate(local);
        Ok(Term::Macro(Box::new(Macro { kind, range, local, condition, item })))
    }
}

/// The item in a step `result + [item]`.
fn appended(step: &IdedExpr) -> Option<&IdedExpr> {
    let Expr::Call(CallExpr { func_name, args, .. }) = &step.expr else { return None };
    match (func_name.as_str(), args.as_slice()) {
        ("_+_", [_, IdedExpr { expr: Expr::List(list), .. }]) => list.elements.first(),
        _ => None,
    }
}

fn binary(name: &str) -> Option<Binary> {
    Some(match name {
        "_+_" => Binary::Add,
        "_-_" => Binary::Subtract,
        "_*_" => Binary::Multiply,
        "_/_" => Binary::Divide,
        "_%_" => Binary::Remainder,
        "_==_" => Binary::Equal,
        "_!=_" => Binary::NotEqual,
        "_<_" => Binary::Less,
        "_<=_" => Binary::LessOrEqual,
        "_>_" => Binary::Greater,
        "_>=_" => Binary::GreaterOrEqual,
        "@in" => Binary::In,
        "_[_]" => Binary::Index,
        _ => return None,
    })
}

/// A function, and how many arguments it takes; the value that it is called on counts.
fn function(name: &str) -> Option<(Function, usize, usize)> {
    Some(match name {
        "sum" => (Function::Sum, 1, 1),
        "min" => (Function::Min, 1, 8),
        "max" => (Function::Max, 1, 8),
        "size" => (Function::Size, 1, 1),
        "contains" => (Function::Contains, 2, 2),
        "startsWith" => (Function::StartsWith, 2, 2),
        "endsWith" => (Function::EndsWith, 2, 2),
        "matches" => (Function::Matches, 2, 2),
        "int" | "uint" => (Function::Int, 1, 1),
        "double" => (Function::Double, 1, 1),
        "string" => (Function::String, 1, 1),
        "bool" => (Function::Bool, 1, 1),
        "type" => (Function::Type, 1, 1),
        "dyn" => (Function::Dyn, 1, 1),
        _ => return None,
    })
}
