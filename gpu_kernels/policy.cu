// The tables of a policy over a batch: policy/kernel.py's `judge`, bit for bit. One thread takes one application through
// all tables in their order, so its votes stand in theirs, and no thread reads what another one writes.
#include "kernel.cuh"

enum { FALSE, UNKNOWN, HIT, OUT_OF_RANGE };  // a row; OUT_OF_RANGE + k: its k-th output
enum { APPROVE = 1, LIMIT, REVIEW, DECLINE };
enum {
  BY_ROW, MISSING_IN, MISSING_FOR, GAP, SOURCE_MISSING, SOURCE_STALE, NO_CAPACITY, LIMITED, TOO_LOW, TOO_SMALL
};
enum { NUMBER, LOAD, ADD, SUBTRACT, MULTIPLY, DIVIDE, NEGATE };
enum {
  KNOCKOUTS, SOURCES, FRAUD, GRADE, LIMIT_TABLE, PRICE, FUNDERS, CAP_MINOR, EXPOSURE_MAX, ROUNDING, MINIMUM,
  ANNUAL_RATE, CAP_RATE, EXPOSURE, SHOWN_AT, CAP_BY_GRADE, MINOR_PER_MAJOR
};
enum { OUTCOME, COUNT, AMOUNT, GRADED, EXPLAIN, DEGRADED, PRICE_ROW, INTEGERS };
enum { STACK = 64 };

struct Tables {
  i64 rows, width, sources, capacities, terms;
  const int *table;          // [tables, 3] rows from, to; 1 where the first row that holds decides
  const int *row;            // [rows, 6] tests from, to; outputs from, to; steps of all its outputs from, to
  const int *test;           // [tests, 3] column; if missing 0 false, 1 unknown, 2 true; 1 where the next joins it
  const double *span;        // [tests, 2] interval from, to
  const int *output;         // [outputs, 3] slot; steps from, to
  const double *range;       // [outputs, 2] from, to
  const int *step;           // [steps, 2] what; column to load
  const double *number;      // [steps]
  const int *mark;           // [rows, 3] outcome, 1 where it has a reason, grade or -1
  const u8 *names_source;    // [rows, sources]
  const int *source_column;  // [sources]
  const int *capacity;       // [capacities, terms] slot, then columns, -1 where there are fewer
  const int *decided_by;     // [width] the table of which it is an output, -1 for none
  const i64 *place;          // [17] as the names above
};

struct Batch {
  i64 batch, inputs;
  const double *value;  // [batch, inputs] NaN where missing
  const i64 *asked;     // [batch] minor units
  double *memory;       // [width, batch]
  i8 *status;           // [rows, batch]
  i64 *vote;            // [·, batch]
  i64 *integer;         // [INTEGERS, batch]
  double *rate;         // [batch]
};

// An application on its way: what it has come to so far stands in registers.
struct One {
  Tables p;
  Batch b;
  i64 i, outcome, count, amount, graded, explain, degraded, price_row;
  u64 undecided;  // one bit a table
};

__device__ inline bool missing(double x) { return x != x; }
__device__ inline bool is_finite(double x) { return x - x == 0; }
__device__ inline double nothing() { return __longlong_as_double(0x7ff8000000000000LL); }
__device__ inline double &at(const One &o, i64 slot) { return o.b.memory[slot * o.b.batch + o.i]; }
__device__ inline i8 &said(const One &o, i64 row) { return o.b.status[row * o.b.batch + o.i]; }

__device__ inline void cast(One &o, i64 outcome, i64 kind, i64 number) {
  o.b.vote[o.count++ * o.b.batch + o.i] = outcome << 40 | kind << 32 | number;
  if (outcome > o.outcome) o.outcome = outcome;
}

// Whether the rows of a table hold. Of a first table only the row that decides says anything.
__device__ void ask(const One &o, i64 table, bool active) {
  const int *t = o.p.table + 3 * table;
  for (i64 r = t[0]; r < t[1]; r++) {
    const int *row = o.p.row + 6 * r;
    int truth = active ? HIT : FALSE;
    bool inside = false;
    for (i64 k = row[0]; k < row[1] && truth > FALSE; k++) {
      const int *test = o.p.test + 3 * k;
      double x = at(o, test[0]);
      inside = inside || (o.p.span[2 * k] <= x && x <= o.p.span[2 * k + 1]);
      if (test[2]) continue;
      int answer = missing(x) ? test[1] : inside ? HIT : FALSE;
      if (answer < truth) truth = answer;
      inside = false;
    }
    for (i64 k = row[4]; k < row[5] && truth > UNKNOWN; k++)
      if (o.p.step[2 * k] == LOAD && missing(at(o, o.p.step[2 * k + 1]))) truth = UNKNOWN;
    if (t[2] && truth != FALSE) active = false;
    said(o, r) = (i8)truth;
  }
}

__device__ double computed(const One &o, i64 from, i64 to) {
  double stack[STACK];
  int top = -1;
  for (i64 k = from; k < to; k++) {
    int step = o.p.step[2 * k];
    if (step <= LOAD) {
      stack[++top] = step == NUMBER ? o.p.number[k] : at(o, o.p.step[2 * k + 1]);
    } else if (step == NEGATE) {
      stack[top] = -stack[top];
    } else {
      double a = stack[--top], b = stack[top + 1];
      stack[top] = step == ADD ? a + b : step == SUBTRACT ? a - b : step == MULTIPLY ? a * b : a / b;
    }
  }
  return stack[0];
}

// What the rows of a table say; outputs of rows that hold go to memory.
__device__ void run(const One &o, i64 table, bool active) {
  ask(o, table, active);
  for (i64 r = o.p.table[3 * table]; r < o.p.table[3 * table + 1]; r++) {
    i64 begin = o.p.row[6 * r + 2], end = o.p.row[6 * r + 3];
    for (i64 k = begin; k < end && said(o, r) == HIT; k++) {
      const int *output = o.p.output + 3 * k;
      if (output[2] == output[1] + 1 && o.p.step[2 * output[1]] == NUMBER) {
        at(o, output[0]) = o.p.number[output[1]];  // literals were checked when the policy loaded
        continue;
      }
      double x = computed(o, output[1], output[2]);
      at(o, output[0]) = x;
      if (o.p.range[2 * k] <= x && x <= o.p.range[2 * k + 1]) continue;
      said(o, r) = (i8)(OUT_OF_RANGE + k - begin);
      for (i64 before = begin; before <= k; before++) at(o, o.p.output[3 * before]) = nothing();
    }
  }
}

// The votes of a collect table that was run, what it lacks first.
__device__ void collect(One &o, i64 table) {
  i64 begin = o.p.table[3 * table], end = o.p.table[3 * table + 1];
  bool lacks = false;
  for (i64 r = begin; r < end; r++) lacks = lacks || said(o, r) == UNKNOWN || said(o, r) >= OUT_OF_RANGE;
  if (lacks) cast(o, REVIEW, MISSING_IN, table);
  for (i64 r = begin; r < end; r++)
    if (o.p.mark[3 * r + 1] && said(o, r) == HIT) cast(o, o.p.mark[3 * r], BY_ROW, r);
}

// What is missing or stale votes REVIEW, unless a row that holds names its state. 0 is fresh, 1 stale.
__device__ void sources(One &o) {
  i64 table = o.p.place[SOURCES];
  i64 begin = table < 0 ? 0 : o.p.table[3 * table], end = table < 0 ? 0 : o.p.table[3 * table + 1];
  for (i64 s = 0; s < o.p.sources; s++) {
    double state = at(o, o.p.source_column[s]);
    if (state == 0) continue;
    o.degraded |= (i64)(state == 1 ? 2 : 1) << (2 * s);
    bool named = false;
    for (i64 r = begin; r < end; r++) named = named || (said(o, r) == HIT && o.p.names_source[r * o.p.sources + s]);
    if (!named) cast(o, REVIEW, state == 1 ? SOURCE_STALE : SOURCE_MISSING, s);
  }
}

// Whether what is missing here has had no vote yet: outputs of tables that did not decide have.
__device__ inline bool lacks(const One &o, i64 column) {
  int table = o.p.decided_by[column];
  return missing(at(o, column)) && !(table >= 0 && o.undecided >> table & 1);
}

// The row that holds of a first table that was run, -1 where it votes REVIEW or is not active.
__device__ i64 first(One &o, i64 table, bool active) {
  i64 r = o.p.table[3 * table], end = o.p.table[3 * table + 1];
  if (!active) return -1;
  while (r < end && said(o, r) == FALSE) r++;
  if (r == end) {
    cast(o, REVIEW, GAP, table);
  } else {
    if (said(o, r) == HIT) return r;
    const int *row = o.p.row + 6 * r;
    bool lacking = said(o, r) >= OUT_OF_RANGE;
    for (i64 k = row[0]; k < row[1]; k++)
      lacking = lacking || (o.p.test[3 * k + 1] == UNKNOWN && lacks(o, o.p.test[3 * k]));
    for (i64 k = row[4]; k < row[5]; k++)
      lacking = lacking || (o.p.step[2 * k] == LOAD && lacks(o, o.p.step[2 * k + 1]));
    if (lacking) cast(o, REVIEW, MISSING_FOR, r);
  }
  o.undecided |= 1ULL << table;
  return -1;
}

// x // y as Python has it, y > 0.
__device__ inline double floor_divided(double x, double y) {
  double rest = fmod(x, y), quotient = (x - rest) / y;
  if (rest < 0) quotient -= 1;
  double below = floor(quotient);
  return quotient - below > 0.5 ? below + 1 : below;
}

// As x86 converts, where it does not fit too.
__device__ inline i64 whole(double x) {
  return x >= -9223372036854775808.0 && x < 9223372036854775808.0 ? (i64)x : (i64)(1ULL << 63);
}

// What may be lent in minor units, 0 where that is not known or less than the least loan; r: the row of `limit`.
__device__ void limit(One &o, i64 r, i64 asked) {
  const i64 *place = o.p.place;
  double most = at(o, place[CAP_MINOR]);
  i64 bound = 0, unknown = 0;
  for (i64 c = 0; c < o.p.capacities; c++) {
    const int *capacity = o.p.capacity + c * o.p.terms;
    double share = at(o, capacity[0]), least = __longlong_as_double(0x7ff0000000000000LL);
    bool known = true;
    for (i64 k = 1; k < o.p.terms; k++) {
      if (capacity[k] < 0) continue;
      double x = at(o, capacity[k]);
      known = known && is_finite(x);
      if (x < least) least = x;
    }
    if (!missing(share) && !known && !unknown) unknown = c + 2;
    double carries = least * share * (double)place[MINOR_PER_MAJOR] + 0.001;  // as policy.kernel says why
    if (carries < most) {
      most = carries;
      bound = c + 2;
    }
  }
  if (place[EXPOSURE_MAX] >= 0) {
    double left = at(o, place[EXPOSURE_MAX]) - at(o, place[EXPOSURE]);
    if (!is_finite(left) && !unknown) unknown = 1;
    if (left < most) {
      most = 0 > left ? 0 : left;
      bound = 1;
    }
  }
  if (unknown) return cast(o, REVIEW, NO_CAPACITY, unknown << 16 | r);
  i64 rounding = whole(at(o, place[ROUNDING])), amount = asked;
  double minimum = at(o, place[MINIMUM]);
  if (!((double)asked <= most)) amount = (i64)((u64)whole(floor_divided(most, (double)rounding)) * (u64)rounding);
  if (amount < asked) {
    o.explain |= (i64)(bound == 0 && place[CAP_BY_GRADE]) << 1;
    bool too_low = (double)amount < minimum;
    cast(o, too_low ? DECLINE : LIMIT, too_low ? TOO_LOW : LIMITED, bound << 16 | r);
  } else if ((double)amount < minimum) {
    cast(o, DECLINE, TOO_SMALL, r);
  }
  o.amount = (double)amount >= minimum ? amount : 0;
}

// What the row of a model's table comes to; k: FRAUD or GRADE.
__device__ inline void grade(One &o, int k, i64 r) {
  const int *mark = o.p.mark + 3 * r;
  if (mark[2] > o.graded) o.graded = mark[2];
  o.explain |= (i64)(mark[0] > APPROVE) << (k - FRAUD);
  if (mark[1]) cast(o, mark[0], BY_ROW, r);
}

// Threads: [batch].
KERNEL judge(const Tables *tables, const Batch *batch, i64 threads) {
  THREAD_OR_RETURN
  One o = {*tables, *batch, thread, APPROVE, 0, 0, -1, 0, 0, 0, 0};
  const i64 *place = o.p.place;
  i64 asked = o.b.asked[thread];
  for (i64 k = 0; k < o.p.width; k++) at(o, k) = k < o.b.inputs ? o.b.value[thread * o.b.inputs + k] : nothing();
  at(o, place[SHOWN_AT]) = (double)asked;
  for (i64 r = 0; r < o.p.rows; r++) said(o, r) = FALSE;
  bool active = true;
  for (int k = KNOCKOUTS; k <= FUNDERS; k++) {
    i64 table = place[k];
    if (k == FRAUD) sources(o);
    if (k == LIMIT_TABLE) {
      active = o.outcome < DECLINE;  // nothing can be worse, and a limit is no reason to decline
      if (table < 0 && active) o.amount = asked;
    }
    if (k == FUNDERS) active = o.outcome <= LIMIT;
    if (table < 0) continue;
    run(o, table, active);
    if (k <= SOURCES) collect(o, table);
    if (k <= SOURCES || k == FUNDERS) continue;
    i64 r = first(o, table, active);
    if (k == PRICE) o.price_row = r;
    if (r < 0) continue;
    if (k <= GRADE) grade(o, k, r);
    if (k == LIMIT_TABLE) limit(o, r, asked);
  }
  bool priced = place[PRICE] >= 0 && o.price_row >= 0 && o.amount > 0;
  o.b.rate[thread] = priced ? at(o, place[ANNUAL_RATE]) : nothing();
  const i64 come_to[INTEGERS] = {o.outcome, o.count, o.amount, o.graded, o.explain, o.degraded, o.price_row};
  for (int k = 0; k < INTEGERS; k++) o.b.integer[k * o.b.batch + thread] = come_to[k];
}
