// An elimination that holds fewer columns [d, m] than it makes.
//
// An end that has more columns than `room` bytes hold is eliminated in segments, each in the place of the one before,
// with a copy of the state where it begins; backwards, those that are gone are eliminated anew from there. For five tiles
// of columns in the place of two:
//
//     eliminate 0 | 1 2 | 3 4     substitute 4 3     eliminate 1 2, substitute 2 1     eliminate 0, substitute 0
//
// (Griewank 1992, Optim. Methods Softw. 1, 35, for states that are kept in the place of what follows from them.)
#pragma once

#include "bands.h"

namespace bandhess {

constexpr Index kMostBytes = 1 << 30;  // that a call may grant to columns

// The columns that an end eliminates, `rows` of them: `count` segments of at most `held` columns, whole tiles but for
// the last one's last.
struct Segments {
  Index rows;
  Index held;
  Index count;

  Segments(Index rows, Index room) : rows(rows) {
    const Index whole = (rows + kTile - 1) / kTile;
    const Index most = std::max<Index>(1, std::min(whole, room / kTile));
    held = most * kTile;
    count = std::max<Index>(1, (whole + most - 1) / most);
  }

  // The first column of segment i; the first segment takes what is left.
  Index begin(Index i) const {
    const Index end = (rows + kTile - 1) / kTile * kTile;
    return i < count ? std::max<Index>(0, end - (count - i) * held) : rows;
  }
};

}  // namespace bandhess
