//! Evaluation of a compiled rule, step by step, until it ends or its steps are used up.

use super::number::{calculate, order};
use super::value::{RecordValue, Value};
use super::{Binary, Macro, MacroKind, Rule, Term, call};
use crate::decide::Needs;
use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::rc::Rc;

/// Why an evaluation gives no value.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The rule cannot be evaluated on these records.
    Error(String),
    /// It takes too long.
    Exhausted,
    /// Something is not known yet.
    Needs(Needs),
}

/// What rules are evaluated on.
pub(crate) trait World<'a> {
    /// The records of an entity before or after the group.
    fn records(&self, entity: &str, is_before: bool) -> Result<Value<'a>, Halt>;
    /// A member of a record: its id, a field, or the list of those that refer to it.
    fn member(&self, record: &RecordValue<'a>, name: &str) -> Result<Value<'a>, Halt>;
}

/// Steps that may still be taken.
#[derive(Debug)]
pub(crate) struct Budget(Cell<u64>);

impl Budget {
    /// So many steps.
    pub(crate) fn of(steps: u64) -> Self {
        Self(Cell::new(steps))
    }

    /// Takes steps, where there are as many.
    pub(crate) fn charge(&self, steps: usize) -> Result<(), Halt> {
        let left = self.0.get().checked_sub(steps as u64).ok_or(Halt::Exhausted)?;
        self.0.set(left);
        Ok(())
    }
}

/// One evaluation of a rule.
pub(crate) struct Evaluation<'e, 'a> {
    world: &'e dyn World<'a>,
    pub(super) budget: &'e Budget,
    locals: Vec<Value<'a>>,
    /// The record for which the outermost `all` failed.
    culprit: Option<Rc<RecordValue<'a>>>,
}

type Evaluated<'a> = Result<Value<'a>, Halt>;

impl<'e, 'a> Evaluation<'e, 'a> {
    /// Whether a rule holds; if not, the record for which it does not, where there is one.
    pub(crate) fn holds(
        rule: &'a Rule,
        world: &'e dyn World<'a>,
        budget: &'e Budget,
    ) -> Result<Result<(), Option<Rc<RecordValue<'a>>>>, Halt> {
        let mut evaluation = Self { world, budget, locals: vec![Value::Null; rule.locals], culprit: None };
        match evaluation.bool(&rule.root)? {
            true => Ok(Ok(())),
            false => Ok(Err(evaluation.culprit)),
        }
    }

    fn value(&mut self, term: &'a Term) -> Evaluated<'a> {
        self.budget.charge(1)?;
        Ok(match term {
            Term::Null => Value::Null,
            Term::Bool(value) => Value::Bool(*value),
            Term::Integer(value) => Value::Integer(*value),
            Term::Decimal(value) => Value::Decimal(*value),
            Term::Text(text) => Value::Text(Cow::Borrowed(text)),
            Term::Local(local) => self.locals[*local].clone(),
            Term::Records { entity, is_before } => self.world.records(entity, *is_before)?,
            Term::Member(of, name) => {
                let of = self.value(of)?;
                self.member(&of, name)?
            }
            Term::Has(of, name) => {
                let of = self.value(of)?;
                Value::Bool(!matches!(self.member(&of, name)?, Value::Null))
            }
            Term::Not(of) => Value::Bool(!self.bool(of)?),
            Term::Negated(of) => calculate(Binary::Subtract, Value::Integer(0), self.value(of)?)?,
            Term::And(terms) => Value::Bool(self.all_or_any(terms, true)?),
            Term::Or(terms) => Value::Bool(self.all_or_any(terms, false)?),
            Term::Choice(parts) => {
                let [test, yes, no] = &**parts;
                if self.bool(test)? { self.value(yes)? } else { self.value(no)? }
            }
            Term::Binary(operator, sides) => {
                let [left, right] = &**sides;
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.binary(*operator, left, right)?
            }
            Term::List(items) => {
                let items = items.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?;
                Value::list(items)
            }
            Term::Map(entries) => self.map(entries)?,
            Term::Macro(inner) => self.macro_value(inner)?,
            Term::Call(function, arguments) => {
                let arguments = arguments.iter().map(|term| self.value(term)).collect::<Result<Vec<_>, _>>()?;
                call::call(*function, arguments, self.budget)?
            }
            Term::Matches(of, regex) => {
                let of = self.value(of)?;
                Value::Bool(call::matches(&of, regex, self.budget)?)
            }
        })
    }

    fn bool(&mut self, term: &'a Term) -> Result<bool, Halt> {
        match self.value(term)? {
            Value::Bool(value) => Ok(value),
            other => Err(Halt::Error(format!("true or false is needed, not {}", other.kind()))),
        }
    }

    /// `&&` and `||`: a side that decides makes an error of the other not matter, whichever stands first.
    fn all_or_any(&mut self, terms: &'a [Term], is_all: bool) -> Result<bool, Halt> {
        let mut error = None;
        for term in terms {
            match self.bool(term) {
                Ok(value) if value != is_all => return Ok(value),
                Ok(_) => {}
                Err(Halt::Error(problem)) => error = error.or(Some(problem)),
                Err(halt) => return Err(halt),
            }
        }
        error.map_or(Ok(is_all), |problem| Err(Halt::Error(problem)))
    }

    fn map(&mut self, entries: &'a [(Term, Term)]) -> Evaluated<'a> {
        let mut map = std::collections::BTreeMap::new();
        for (key, value) in entries {
            let Value::Text(key) = self.value(key)? else {
                return Err(Halt::Error("a map's key is a text".to_owned()));
            };
            map.insert(Box::from(&*key), self.value(value)?);
        }
        Ok(Value::Map(Rc::new(map)))
    }

    fn member(&self, of: &Value<'a>, name: &str) -> Evaluated<'a> {
        match of {
            Value::Record(record) => {
                let value = self.world.member(record, name)?;
                // It was made just now, and is made again each time.
                self.budget.charge(value.weight())?;
                Ok(value)
            }
            Value::Map(map) => Ok(map.get(name).cloned().unwrap_or(Value::Null)),
            other => Err(Halt::Error(format!("{} has no member {name:?}", other.kind()))),
        }
    }

    fn binary(&mut self, operator: Binary, left: Value<'a>, right: Value<'a>) -> Evaluated<'a> {
        Ok(match operator {
            Binary::Equal => Value::Bool(self.is_equal(&left, &right)?),
            Binary::NotEqual => Value::Bool(!self.is_equal(&left, &right)?),
            Binary::Less => Value::Bool(self.order(&left, &right)?.is_lt()),
            Binary::LessOrEqual => Value::Bool(self.order(&left, &right)?.is_le()),
            Binary::Greater => Value::Bool(self.order(&left, &right)?.is_gt()),
            Binary::GreaterOrEqual => Value::Bool(self.order(&left, &right)?.is_ge()),
            Binary::In => Value::Bool(self.is_in(&left, &right)?),
            Binary::Index => self.index(&left, &right)?,
            Binary::Add => match (left, right) {
                (Value::Text(left), Value::Text(right)) => {
                    self.budget.charge((left.len() + right.len()) / 8)?;
                    Value::Text(Cow::Owned(format!("{left}{right}")))
                }
                (Value::List(left), Value::List(right)) => {
                    self.budget.charge(left.len() + right.len())?;
                    Value::list(left.iter().chain(&*right).cloned().collect())
                }
                (left, right) => calculate(Binary::Add, left, right)?,
            },
            operator => calculate(operator, left, right)?,
        })
    }

    fn order(&self, left: &Value<'a>, right: &Value<'a>) -> Result<Ordering, Halt> {
        self.budget.charge(left.weight().min(right.weight()))?;
        order(left, right)
    }

    fn index(&self, whole: &Value<'a>, index: &Value<'a>) -> Evaluated<'a> {
        match (whole, index) {
            (Value::List(items), Value::Integer(index)) => {
                let item = usize::try_from(*index).ok().and_then(|index| items.get(index));
                item.cloned().ok_or_else(|| Halt::Error(format!("a list of {} has no item {index}", items.len())))
            }
            (whole, Value::Text(name)) => self.member(whole, name),
            (whole, index) => Err(Halt::Error(format!("{} has no item at {}", whole.kind(), index.kind()))),
        }
    }

    fn is_in(&self, item: &Value<'a>, whole: &Value<'a>) -> Result<bool, Halt> {
        match (whole, item) {
            (Value::List(items), item) => {
                for other in items.iter() {
                    if self.is_equal(item, other)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Value::Map(map), Value::Text(key)) => Ok(map.contains_key(&**key)),
            (other, _) => Err(Halt::Error(format!("nothing is in {}", other.kind()))),
        }
    }

    /// Values of different kinds are not equal; a record is equal to itself.
    fn is_equal(&self, left: &Value<'a>, right: &Value<'a>) -> Result<bool, Halt> {
        self.budget.charge(1)?;
        Ok(match (left, right) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(left), Value::Bool(right)) => left == right,
            (Value::Text(left), Value::Text(right)) => {
                self.budget.charge(left.len().min(right.len()) / 64)?;
                left == right
            }
            (Value::Record(left), Value::Record(right)) => left.key == right.key,
            (Value::List(left), Value::List(right)) => {
                left.len() == right.len() && self.are_equal(left.iter().zip(right.iter()))?
            }
            (Value::Map(left), Value::Map(right)) => {
                left.len() == right.len()
                    && left.keys().eq(right.keys())
                    && self.are_equal(left.values().zip(right.values()))?
            }
            _ => matches!((left.decimal(), right.decimal()), (Some(left), Some(right)) if left.compare(right).is_eq()),
        })
    }

    fn are_equal<'v>(&self, pairs: impl Iterator<Item = (&'v Value<'a>, &'v Value<'a>)>) -> Result<bool, Halt>
    where
        'a: 'v,
    {
        for (left, right) in pairs {
            if !self.is_equal(left, right)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn macro_value(&mut self, inner: &'a Macro) -> Evaluated<'a> {
        let items = match self.value(&inner.range)? {
            Value::List(items) => items,
            Value::Map(map) => Rc::new(map.keys().map(|key| Value::Text(Cow::Owned(key.to_string()))).collect()),
            other => return Err(Halt::Error(format!("{} has no items to go through", other.kind()))),
        };
        match inner.kind {
            MacroKind::Map => self.map_items(inner, &items),
            MacroKind::ExistsOne => {
                let mut found = 0;
                for item in items.iter() {
                    found += usize::from(self.fulfils(inner, item)?);
                }
                Ok(Value::Bool(found == 1))
            }
            kind => self.quantified(inner, &items, kind == MacroKind::All).map(Value::Bool),
        }
    }

    fn fulfils(&mut self, inner: &'a Macro, item: &Value<'a>) -> Result<bool, Halt> {
        self.budget.charge(1)?;
        self.locals[inner.local] = item.clone();
        inner.condition.as_ref().map_or(Ok(true), |condition| self.bool(condition))
    }

    fn map_items(&mut self, inner: &'a Macro, items: &[Value<'a>]) -> Evaluated<'a> {
        let mut made = Vec::new();
        for item in items {
            if self.fulfils(inner, item)?
                && let Some(term) = &inner.item
            {
                made.push(self.value(term)?);
            }
        }
        Ok(Value::list(made))
    }

    /// `all` and `exists`: an item that decides makes errors of others not matter.
    fn quantified(&mut self, inner: &'a Macro, items: &[Value<'a>], is_all: bool) -> Result<bool, Halt> {
        let mut error = None;
        for item in items {
            match self.fulfils(inner, item) {
                Ok(value) if value != is_all => {
                    if let (true, Value::Record(record)) = (is_all, item) {
                        self.culprit = Some(Rc::clone(record));
                    }
                    return Ok(value);
                }
                Ok(_) => {}
                Err(Halt::Error(problem)) => error = error.or(Some(problem)),
                Err(halt) => return Err(halt),
            }
        }
        error.map_or(Ok(is_all), |problem| Err(Halt::Error(problem)))
    }
}
