use serde::{Deserialize, Serialize};

/// The language of a page's headings and fixed words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Arabic, written from right to left.
    Arabic,
}

impl Language {
    /// Its tag (BCP 47).
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Arabic => "ar",
        }
    }

    /// The direction of its writing, as HTML names it.
    pub const fn direction(self) -> &'static str {
        match self {
            Self::English => "ltr",
            Self::Arabic => "rtl",
        }
    }
}

macro_rules! labels {
    ($($name:ident: $english:literal, $arabic:literal;)*) => {
        /// A fixed word of the page.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Label {
            $($name,)*
        }

        impl Label {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word in `language`.
            pub(crate) const fn in_language(self, language: Language) -> &'static str {
                match (self, language) {
                    $((Self::$name, Language::English) => $english,
                    (Self::$name, Language::Arabic) => $arabic,)*
                }
            }
        }
    };
}

labels! {
    Kind: "Dossier of evidence", "ملفّ أدلّة";
    Subtitle: "On the distillation of a language model", "في شأن تقطير نموذج لغوي";
    Contents: "Contents", "المحتويات";
    MadeAt: "Made", "حُرِّر في";
    Simulated: "The times in this journal are simulated.", "الأوقات في هذا السجلّ محاكاة.";
    Summary: "Findings", "النتائج";
    Timeline: "What happened, and when", "ماذا حدث ومتى";
    TimelineNote: "Each bar counts what the journal recorded in one interval, stacked by operator.",
        "يعدّ كلُّ عمود ما قيّده السجلّ في فترة واحدة، مكدَّسًا بحسب المشغِّل.";
    Marks: "Marks", "علامات";
    Operators: "Who belongs together", "من ينتمي إلى من";
    GraphNote: "Each dot is an account, its area what it took; accounts that are thought to be one operator are drawn together. Lines are links, darker where the evidence is heavier.",
        "كلُّ نقطة حساب، ومساحتها بقدر ما أخذ؛ والحسابات التي يُظنّ أنها لمشغِّل واحد مرسومة معًا. والخطوط روابط، تشتدّ قتامتها بثقل الدليل.";
    Operator: "Operator", "المشغِّل";
    Standing: "Standing", "الوضع";
    Accounts: "Accounts", "الحسابات";
    Account: "Account", "الحساب";
    Exchanges: "Exchanges", "التبادلات";
    OutputTokens: "Output tokens", "رموز الإخراج";
    Cost: "Price", "الثمن";
    From: "From", "من";
    To: "To", "إلى";
    Certainty: "Certainty", "درجة اليقين";
    Why: "Why", "لماذا";
    Against: "What speaks against it", "ما يعارض ذلك";
    Nats: "nats", "نات";
    NoOperators: "No operators were looked for.", "لم يُبحث عن مشغِّلين.";
    Verdicts: "Was it trained on these answers?", "هل دُرِّب على هذه الإجابات؟";
    Suspect: "Suspect", "المشتبه به";
    Teacher: "Teacher", "المعلِّم";
    PointsAt: "Through the accounts of", "عبر حسابات";
    Contradicted: "Contradicted", "منفيّ";
    ContradictedNote: "What was stated beforehand is excluded. Weaker training, or another kind of it, is not.",
        "نُفِي ما حُدِّد سلفًا. أمّا تدريب أضعف منه أو من نوع آخر فلم يُنفَ.";
    Excluded: "What the pairs exclude", "ما تنفيه الأزواج";
    NotShown: "Not shown", "لم يَثبُت";
    Moderate: "Moderate", "متوسّط";
    Strong: "Strong", "قويّ";
    Established: "Established", "ثابت";
    NotShownNote: "Not shown is not innocent: the test saw too little to say more.",
        "«لم يَثبُت» لا تعني البراءة: لم يَرَ الاختبار ما يكفي ليقول أكثر.";
    Exact: "Exact evidence", "دليل محكم";
    ExactNote: "What is random in it was drawn by somebody under a commitment, or is exchangeable by itself: each test says what it is. No control is needed.",
        "العشوائي فيه سحبه أحدٌ ملتزمًا به سلفًا، أو هو قابل للتبادل بذاته، ويبيّن كلُّ اختبار ما هو. ولا حاجة إلى نماذج مقارنة.";
    Controls: "Evidence that rests on controls", "دليل يستند إلى نماذج المقارنة";
    ControlsNote: "What is random in it is which models were taken as controls: it holds as far as suspect and controls are exchangeable. Moderate at most where it accuses.",
        "العشوائي فيه هو أيُّ النماذج اتُّخذ للمقارنة: فلا يصحّ إلا بقدر ما يكون المشتبه به ونماذج المقارنة قابلين للتبادل. ولا يبلغ في الاتهام أكثر من «متوسّط».";
    NeverAdded: "The two columns are never added up: neither strengthens the other.",
        "لا يُجمع العمودان أبدًا: فلا يقوّي أحدهما الآخر.";
    NoTest: "No test of this kind was made.", "لم يُجرَ اختبار من هذا النوع.";
    OtherTests: "Other tests", "اختبارات أخرى";
    AskTwins: "Does it prefer what was served?", "هل يفضّل ما قُدِّم؟";
    AskNearness: "Does it come nearer to the teacher along what was served?", "هل يقترب من المعلِّم على طول ما قُدِّم؟";
    AskOverlap: "Has what it wrote more words in a row in common with what was served?", "هل في ما كتبه كلماتٌ متتالية أكثر ممّا قُدِّم؟";
    AskProbe: "Does it go on as what was served does?", "هل يُكمل كما يُكمل ما قُدِّم؟";
    AskCanaries: "Does it remember the secrets that were served?", "هل يتذكّر الأسرار التي قُدِّمت؟";
    AskWeights: "Are its weights derived from the teacher's?", "هل أوزانه مشتقّة من أوزان المعلِّم؟";
    AskWatermark: "Does it fit the key of the watermark?", "هل يوافق مفتاحَ العلامة المائية؟";
    AskEndpoint: "Does the server differ from what it is said to be?", "هل يختلف الخادم عمّا يُقال إنه هو؟";
    AskStyle: "Does it write as the teacher's family does?", "هل يكتب كما تكتب عائلة المعلِّم؟";
    AskIdentity: "Does it go by another's name?", "هل يتسمّى باسم غيره؟";
    AskErrors: "Does it give the teacher's rare answers?", "هل يعطي إجابات المعلِّم النادرة؟";
    AskExclusion: "Is training like that of the calibration students excluded?", "هل يُنفى تدريبٌ كتدريب تلاميذ المعايرة؟";
    AmongPlot: "The suspect among the controls", "المشتبه به بين نماذج المقارنة";
    AmongNote: "Each dot is a control at its score, the line is the suspect. More prompts do not make more dots.",
        "كلُّ نقطة نموذجُ مقارنة عند درجته، والخطّ هو المشتبه به. ولا تزيد كثرةُ الأسئلة عددَ النقاط.";
    Report: "Report", "التقرير";
    Recomputed: "What the check computes again", "ما يعيد التحقُّق حسابه";
    OnTrust: "What it takes on trust, and what that would need", "ما يُؤخذ على الثقة، وما يحتاج إليه حسابُه";
    Model: "Model", "النموذج";
    What: "Of what", "ممَّ";
    Texts: "Texts", "النصوص";
    Value: "Statistic", "الإحصاءة";
    ByChance: "By chance", "بالمصادفة";
    Places: "Places", "المواضع";
    Hits: "In their counterpart's place", "في موضع نظيرها";
    Canaries: "Canaries", "نصوص الكناري";
    Bits: "Bits", "البتّات";
    Versions: "Versions of each", "صيغ كلٍّ منها";
    AgreementOfUnits: "Units that gate and up projections both name (no p-value)", "وحدات يسمّيها إسقاطا البوّابة والصعود معًا (بلا قيمة p)";
    SharedTokens: "Tokens that both have (no p-value)", "رموز مشتركة بينهما (بلا قيمة p)";
    Score: "Score", "الدرجة";
    NameShare: "Answers with the name", "إجابات فيها الاسم";
    RareShare: "Share of the teacher's rare answers", "نصيبه من إجابات المعلِّم النادرة";
    Rare: "Rare answers shared", "إجابات نادرة مشتركة";
    Interval: "95 % interval", "فترة 95 %";
    Names: "Names that were looked for", "الأسماء التي بُحث عنها";
    Accused: "Family in question", "العائلة المعنيّة";
    Nearest: "Nearest family", "أقرب عائلة";
    Prompts: "Prompts", "الأسئلة";
    ControlModels: "Controls", "نماذج المقارنة";
    Families: "Families", "العائلات";
    Discrepancy: "Discrepancy", "التباين";
    ShortAnswers: "Short answers of either", "إجابات قصيرة من كلٍّ منهما";
    P: "p", "p";
    PModels: "p over models", "p على النماذج";
    PFamilies: "p over families", "p على العائلات";
    Floor: "Least possible", "أدنى ممكن";
    Verdict: "Verdict", "الحكم";
    Commitment: "Committed to beforehand", "ما التُزِم به سلفًا";
    PValue: "Exact p-value", "القيمة الاحتمالية p بالضبط";
    EValue: "e-value", "القيمة e";
    Pairs: "Pairs", "الأزواج";
    ServedFirst: "Served ranked first", "المُقدَّم جاء أولًا";
    NullHypothesis: "Null hypothesis", "فرضية العدم";
    Randomness: "What is random in it", "ما هو عشوائي فيها";
    Statistic: "What was computed", "ما الذي حُسِب";
    ErrorRate: "How often it accuses who is innocent", "كم مرّةً يتّهم بريئًا";
    DifferencesPlot: "Does the suspect prefer what was served?", "هل يفضّل المشتبه به ما قُدِّم؟";
    DifferencesNote: "Pairs by how much the suspect prefers the served answer over its twin. The outline is the same pairs if the coin had fallen the other way as often: what a model that saw nothing shows on average.",
        "الأزواج بحسب مقدار تفضيل المشتبه به للإجابة المقدَّمة على توأمها. والخطّ المحيط هو الأزواج نفسها لو وقعت القطعة على الوجه الآخر بالقدر نفسه: ما يُظهره في المتوسط نموذجٌ لم يَرَ شيئًا.";
    PrefersTwin: "prefers the twin", "يفضّل التوأم";
    PrefersServed: "prefers the served", "يفضّل المقدَّم";
    PathPlot: "How the evidence grew", "كيف نما الدليل";
    PathNote: "The e-process, pair by pair in the order of the journal. Had the suspect seen nothing, the chance that it ever reaches the dashed line is at most one in a million.",
        "عملية القيمة e، زوجًا زوجًا بترتيب السجلّ. ولو لم يكن المشتبه به قد رأى شيئًا لكان احتمال بلوغها الخطَّ المتقطّع في أيّ وقت واحدًا من مليون على الأكثر.";
    Threshold: "one in a million", "واحد من مليون";
    PerOperator: "The same test, operator by operator", "الاختبار نفسه لكلّ مشغِّل";
    PerPart: "The same test, by version of the teacher and period", "الاختبار نفسه لكلّ إصدارٍ من المعلِّم ولكلّ مدّة";
    Part: "Part", "الجزء";
    AdjustedP: "p (Holm)", "p (هولم)";
    RivalExplanations: "What else could explain it", "ما الذي قد يفسّره غير ذلك";
    DoesNotShow: "What it does not show", "ما لا يُثبته";
    Power: "What so many pairs can show", "ما يمكن لهذا العدد من الأزواج إثباته";
    Licence: "What was allowed", "ما كان مسموحًا";
    Terms: "Terms", "الشروط";
    Permission: "Distillation", "التقطير";
    Conditions: "Conditions", "القيود";
    Grants: "Grants", "التراخيص";
    Grant: "Grant", "الترخيص";
    For: "For", "الغرض";
    Given: "Given", "مُنِح في";
    Expires: "Expires", "ينتهي في";
    State: "State", "الحالة";
    Words: "The words of the terms", "نصّ الشروط";
    Students: "The students", "التلاميذ";
    Student: "Student", "التلميذ";
    TrainedOn: "Trained on", "دُرِّب على";
    Parameters: "Parameters", "المعاملات";
    TrainingTokens: "Training tokens", "رموز التدريب";
    CpuTime: "CPU time", "زمن المعالج";
    HeldOutLoss: "Held-out loss", "الخسارة على المحجوب";
    Agreement: "Agreement with the teacher", "الاتفاق مع المعلِّم";
    Accuracy: "Tasks solved", "المهامّ المحلولة";
    Beside: "Equal student from scratch", "تلميذ مماثل من الصفر";
    Provenance: "What this rests on", "على ماذا يستند هذا";
    Journal: "Journal", "السجلّ";
    Root: "Root of the journal", "جذر السجلّ";
    Records: "Records under that root", "القيود تحت ذلك الجذر";
    Disclosed: "Records disclosed here", "القيود المكشوفة هنا";
    Signer: "Public key of the signer", "المفتاح العامّ للموقِّع";
    Software: "Software", "البرنامج";
    HowToVerify: "How to check this without trusting us", "كيف تتحقّق من هذا دون أن تثق بنا";
    Footer: "This page reports evidence. A verdict on people belongs to people.",
        "تعرض هذه الصفحة أدلّة. أما الحكم على الناس فللناس.";
    Unknown: "not known", "غير معروف";
    Others: "others", "آخرون";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_translated() {
        for label in Label::ALL {
            let (english, arabic) = (label.in_language(Language::English), label.in_language(Language::Arabic));
            assert!(english.is_ascii() && !english.is_empty(), "{label:?}");
            // A symbol is the same in every language.
            let is_word = arabic.chars().any(|letter| ('\u{600}'..'\u{700}').contains(&letter));
            assert!(is_word || (english == arabic && english.len() == 1), "{label:?}");
        }
    }
}
