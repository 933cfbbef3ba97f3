//! Which names a rule uses that nothing has: found when the schema is read, not with the first sale.

use super::Expression;
use cel::common::ast::{EntryExpr, Expr, IdedExpr};

/// What rules may call, but for operators and macros: CEL's own functions and `sum`.
pub(crate) const FUNCTIONS: [&str; 15] = [
    "bool",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "int",
    "matches",
    "max",
    "min",
    "size",
    "startsWith",
    "string",
    "sum",
    "type",
    "uint",
];
/// Macros: a call of one of these that is left in a compiled rule had the wrong arguments.
const MACROS: [&str; 6] = ["all", "exists", "exists_one", "filter", "has", "map"];
/// The state before the group.
const BEFORE: &str = "before";

/// A name that nothing has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown<'k> {
    /// `variable`, `entity` or `function`.
    pub what: &'static str,
    /// The name.
    pub name: String,
    /// Bytes of the rule before it, as far as known.
    pub offset: Option<usize>,
    /// Names that it may have meant.
    pub near: Vec<&'k str>,
}

impl Expression {
    /// Every name that is no entity's, none of a variable that the rule binds itself, and no function's.
    pub(super) fn unknown_names<'k>(&self, entities: &[&'k str]) -> Vec<Unknown<'k>> {
        let mut walk = Walk { expression: self, entities, bound: Vec::new(), unknown: Vec::new() };
        walk.visit(self.program().expression());
        walk.unknown
    }
}

/// Whether a tree has more than so many levels.
pub(super) fn is_deeper(node: &IdedExpr, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else { return true };
    children(node).into_iter().any(|child| is_deeper(child, levels))
}

/// The nodes right below one.
fn children(node: &IdedExpr) -> Vec<&IdedExpr> {
    match &node.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => Vec::new(),
        Expr::Select(select) => vec![&*select.operand],
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(inner) => {
            vec![&inner.iter_range, &inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| children_of_entry(&entry.expr)).collect(),
        Expr::Struct(made) => made.entries.iter().flat_map(|entry| children_of_entry(&entry.expr)).collect(),
    }
}

fn children_of_entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

struct Walk<'w, 'k> {
    expression: &'w Expression,
    entities: &'w [&'k str],
    bound: Vec<&'w str>,
    unknown: Vec<Unknown<'k>>,
}

impl<'w, 'k> Walk<'w, 'k> {
    fn visit(&mut self, node: &'w IdedExpr) {
        match &node.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.check_variable(name, node.id),
            Expr::Select(select) => {
                let is_before = matches!(&select.operand.expr, Expr::Ident(name) if self.is_before(name));
                if !is_before {
                    return self.visit(&select.operand);
                }
                if !self.entities.contains(&select.field.as_str()) {
                    self.note("entity", &select.field, node.id, self.entities.to_vec());
                }
            }
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                let is_word = name.starts_with(|first: char| first.is_ascii_alphabetic());
                if is_word && !FUNCTIONS.contains(&name) {
                    self.note("function", name, node.id, FUNCTIONS.iter().chain(&MACROS).copied().collect());
                }
                children(node).into_iter().for_each(|child| self.visit(child));
            }
            Expr::Comprehension(inner) => {
                self.visit(&inner.iter_range);
                self.visit(&inner.accu_init);
                let before = self.bound.len();
                self.bound.push(&inner.iter_var);
                self.bound.extend(inner.iter_var2.as_deref());
                for part in [&inner.loop_cond, &inner.loop_step, &inner.result] {
                    self.visit(part);
                }
                self.bound.truncate(before);
            }
            Expr::List(_) | Expr::Map(_) | Expr::Struct(_) => children(node).into_iter().for_each(|child| self.visit(child)),
        }
    }

    fn is_before(&self, name: &str) -> bool {
        name == BEFORE && !self.bound.contains(&BEFORE)
    }

    fn check_variable(&mut self, name: &'w str, id: u64) {
        // The compiler's own variables begin with @.
        let is_known = name.starts_with('@') || self.bound.contains(&name) || self.entities.contains(&name);
        if !is_known && !self.is_before(name) {
            self.note("variable", name, id, self.entities.to_vec());
        }
    }

    fn note(&mut self, what: &'static str, name: &str, id: u64, near: Vec<&'k str>) {
        if self.unknown.iter().any(|known| known.name == name && known.what == what) {
            return;
        }
        let start = self.expression.program().source_info().offset_for(id).map(|(start, _)| start as usize);
        let source = self.expression.source();
        // The compiler's place of a selection or call is its dot or brace: the name stands beside it.
        let after = start.filter(|start| source.is_char_boundary(*start)).and_then(|start| {
            let before = source[..start].ends_with(name).then(|| start - name.len());
            before.or_else(|| source[start..].find(name).map(|offset| start + offset))
        });
        self.unknown.push(Unknown { what, name: name.to_owned(), offset: after.or_else(|| source.find(name)), near });
    }
}
