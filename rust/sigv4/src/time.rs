//! Dates as signatures write them. No clock here: callers bring the time.

use crate::SignError;

/// `20150830T123600Z`
pub type AmzDate = [u8; 16];

/// Writes seconds since 1970 as `yyyymmddThhmmssZ` (ISO 8601, basic form). Days to dates after Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms".
pub fn amz_date(unix_seconds: u64) -> Result<AmzDate, SignError> {
    const LAST: u64 = 253_402_300_799; // 9999-12-31T23:59:59Z
    if unix_seconds > LAST {
        return Err(SignError::Time(unix_seconds));
    }
    let (days, second) = (unix_seconds / 86_400 + 719_468, unix_seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let [y1, y2] = two(year / 100);
    let [y3, y4] = two(year % 100);
    let [m1, m2] = two(month);
    let [d1, d2] = two(day);
    let [h1, h2] = two(second / 3_600);
    let [i1, i2] = two(second / 60 % 60);
    let [s1, s2] = two(second % 60);
    Ok([y1, y2, y3, y4, m1, m2, d1, d2, b'T', h1, h2, i1, i2, s1, s2, b'Z'])
}

/// Seconds since 1970 of `yyyymmddThhmmssZ`, if that is a time.
pub(crate) fn unix_seconds_of(amz_date: &AmzDate) -> Option<u64> {
    let number = |from: usize, to: usize| {
        let digits = amz_date.get(from..to)?;
        digits.iter().try_fold(0_u64, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    if !(1970..).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    // Written anew it must be the same: the 31st of April is the 1st of May, and letters stand where they stand.
    (crate::time::amz_date(seconds).ok().as_ref() == Some(amz_date)).then_some(seconds)
}

fn two(number: u64) -> [u8; 2] {
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (1_440_938_160, "20150830T123600Z"),
            (951_782_400, "20000229T000000Z"),
            (4_107_542_399, "21000228T235959Z"),
            (253_402_300_799, "99991231T235959Z"),
        ] {
            assert_eq!(amz_date(seconds).unwrap(), *expected.as_bytes());
            assert_eq!(unix_seconds_of(expected.as_bytes().try_into().unwrap()), Some(seconds));
        }
        assert_eq!(amz_date(253_402_300_800), Err(SignError::Time(253_402_300_800)));
        assert!(amz_date(u64::MAX).is_err());
        for bad in [
            "20150431T000000Z",
            "20150230T000000Z",
            "20150830 123600Z",
            "20150830T123600z",
            "20150830T246000Z",
            "x0150830T123600Z",
            "19691231T235959Z",
        ] {
            assert_eq!(unix_seconds_of(bad.as_bytes().try_into().unwrap()), None, "{bad}");
        }
    }
}
